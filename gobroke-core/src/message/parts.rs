//! What few messages carry, kept behind one pointer: metadata, tags, extensions.

use std::{
    any::{Any, TypeId},
    fmt,
    sync::{Arc, LazyLock},
};

use serde_json::{Map, Value};

use crate::{CloseReason, Name};

/// Context that travels with a message or belongs to a client: JSON values by name.
pub type Metadata = Map<String, Value>;

/// Notes of middleware and logic on a message: JSON values by name.
pub type Tags = Map<String, Value>;

#[derive(Clone, Debug, Default)]
pub(crate) struct More {
    pub(crate) metadata: Metadata,
    pub(crate) tags: Tags,
    pub(crate) rejection: Option<String>,
    /// The close of its sender that middleware asked for.
    pub(crate) close: Option<CloseReason>,
    /// The instance that the message came from, where that is another one.
    pub(crate) instance: Option<Name>,
    pub(crate) extensions: Extensions,
}

impl More {
    /// What a message from another instance carries that carries nothing else.
    pub(crate) fn from_instance(name: Name) -> Self {
        Self {
            instance: Some(name),
            ..Self::default()
        }
    }
}

/// The map that a message without metadata or tags answers with.
pub(crate) fn empty() -> &'static Map<String, Value> {
    static EMPTY: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
    &EMPTY
}

/// Values by type. Few at a time, so a list that is searched.
#[derive(Clone, Default)]
pub(crate) struct Extensions(Vec<(TypeId, Arc<dyn Any + Send + Sync>)>);

impl Extensions {
    pub(crate) fn get<T: Any + Send + Sync>(&self) -> Option<&T> {
        let (_, value) = self.0.iter().find(|(id, _)| *id == TypeId::of::<T>())?;
        value.downcast_ref()
    }

    pub(crate) fn set<T: Any + Send + Sync>(&mut self, value: T) {
        let id = TypeId::of::<T>();
        let value: Arc<dyn Any + Send + Sync> = Arc::new(value);
        match self.0.iter_mut().find(|(known, _)| *known == id) {
            Some((_, slot)) => *slot = value,
            None => self.0.push((id, value)),
        }
    }
}

impl fmt::Debug for Extensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Extensions({})", self.0.len())
    }
}
