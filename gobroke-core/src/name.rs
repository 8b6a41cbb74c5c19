//! [`Name`]: what logic modules, groups and instances are called.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    ops::Deref,
    sync::Arc,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The name of a logic module, a group or an instance.
///
/// A cheap handle: cloning it copies 16 bytes, and counts one more holder where the name is longer than 14 bytes. Keep
/// one where a name is used for every message.
///
/// ```
/// use gobroke_core::Name;
/// let lobby = Name::from("lobby");
/// assert_eq!(lobby, "lobby");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Name(Form);

/// A short name stands in place. Messages carry names, and a count of holders that every thread changes for every
/// message costs more than all else that is done with them.
#[derive(Clone, PartialEq, Eq)]
enum Form {
    /// The bytes behind `length` are zero, so equal names are equal here.
    Short { length: u8, bytes: [u8; SHORT] },
    /// Behind one pointer, not the two words of an `Arc<str>`: a name has 16 bytes.
    Long(Arc<Box<str>>),
}

/// What fits into 16 bytes, beside the length and which form it is.
const SHORT: usize = 14;

impl Name {
    /// The name as a string slice.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Form::Short { length, bytes } => str::from_utf8(&bytes[..usize::from(*length)])
                .unwrap_or_else(|_| unreachable!("a short name is copied from a string")),
            Form::Long(name) => name,
        }
    }

    fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Form::Short { length, bytes } => &bytes[..usize::from(*length)],
            Form::Long(name) => name.as_bytes(),
        }
    }

    fn short(name: &str) -> Option<Self> {
        let mut bytes = [0; SHORT];
        bytes
            .get_mut(..name.len())?
            .copy_from_slice(name.as_bytes());
        let length = name.len() as u8;
        Some(Self(Form::Short { length, bytes }))
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

// As the string that it borrows as, and in its order, which is that of the bytes.
impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        self
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        self
    }
}

impl From<&str> for Name {
    fn from(name: &str) -> Self {
        Self::short(name).unwrap_or_else(|| Self(Form::Long(Arc::new(name.into()))))
    }
}

impl From<String> for Name {
    fn from(name: String) -> Self {
        Self::short(&name).unwrap_or_else(|| Self(Form::Long(Arc::new(name.into()))))
    }
}

impl From<&String> for Name {
    fn from(name: &String) -> Self {
        Self::from(name.as_str())
    }
}

impl From<&Name> for Name {
    fn from(name: &Name) -> Self {
        name.clone()
    }
}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl PartialEq<&str> for Name {
    fn eq(&self, other: &&str) -> bool {
        *self == **other
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    use super::*;

    #[test]
    fn a_name_of_any_length_is_the_string_that_it_was_made_of() {
        let hasher = RandomState::new();
        let text = "é is two bytes long, and so on";
        for end in (0..=text.len()).filter(|&end| text.is_char_boundary(end)) {
            let text = &text[..end];
            let name = Name::from(text);
            assert_eq!((name.as_str(), name.to_string()), (text, text.to_owned()));
            assert!(name == Name::from(text.to_owned()) && name == *text);
            assert!(name != Name::from(format!("{text}\0")));
            assert_eq!(hasher.hash_one(&name), hasher.hash_one(text));
        }
    }

    #[test]
    fn names_have_the_order_of_their_strings() {
        let mut names = ["b", "", "a long one that is shared", "aa", "é", "a"].map(Name::from);
        names.sort();
        let sorted = ["", "a", "a long one that is shared", "aa", "b", "é"];
        assert!(names.iter().eq(sorted));
    }

    #[test]
    fn a_name_has_two_words() {
        assert_eq!(size_of::<Name>(), 16);
        assert_eq!(size_of::<Option<Name>>(), 16);
    }
}
