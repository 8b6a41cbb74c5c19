//! [`Cache`]: what was looked up before, bounded.

use std::{borrow::Borrow, collections::HashMap, hash::Hash};

/// A map that keeps what was used lately, up to a weight.
///
/// Two generations: what is used moves into the young one; when that is half of the whole, it becomes the old one, and
/// what the old one still held is forgotten. A look-up costs one or two hashes, and nothing is ever moved but on use.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    young_weight: usize,
    bound: usize,
}

impl<K: Eq + Hash + Clone, V> Cache<K, V> {
    /// One that keeps this weight at the most, and half of it at the least.
    pub(crate) fn new(bound: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            young_weight: 0,
            bound,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// The value of a key; `weight` says what one weighs.
    pub(crate) fn get_mut<Q>(&mut self, key: &Q, weight: impl Fn(&V) -> usize) -> Option<&mut V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        if !self.young.contains_key(key) {
            let (key, value) = self.old.remove_entry(key)?;
            let weight = weight(&value);
            self.insert(key, value, weight);
        }
        self.young.get_mut(key)
    }

    pub(crate) fn insert(&mut self, key: K, value: V, weight: usize) {
        self.old.remove(&key);
        if self.young_weight + weight > self.bound / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_weight = 0;
        }
        self.young_weight += weight;
        self.young.insert(key, value);
    }

    pub(crate) fn remove<Q>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.young.remove(key);
        self.old.remove(key);
    }

    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&mut V) -> bool) {
        self.young.retain(|_, value| keep(value));
        self.old.retain(|_, value| keep(value));
    }

    pub(crate) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
        self.young_weight = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_keeps_what_is_used() {
        let mut cache = Cache::new(100);
        for key in 0..10_000 {
            cache.insert(key, key * 2, 1);
            assert!(cache.len() <= 100);
            assert_eq!(cache.get_mut(&0, |_| 1), Some(&mut 0), "used all the time");
        }
        assert_eq!(cache.get_mut(&9_999, |_| 1), Some(&mut 19_998));
        assert_eq!(cache.get_mut(&500, |_| 1), None);
    }

    #[test]
    fn a_key_has_one_value() {
        let mut cache = Cache::new(10);
        for value in 0..20 {
            cache.insert('a', value, 1);
            assert_eq!(cache.get_mut(&'a', |_| 1), Some(&mut { value }));
            cache.insert('b', value, 1);
        }
        cache.remove(&'a');
        assert_eq!(cache.get_mut(&'a', |_| 1), None);
    }
}
