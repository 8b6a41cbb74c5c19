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
    weight: fn(&V) -> usize,
}

impl<K: Eq + Hash + Clone, V> Cache<K, V> {
    /// One that keeps this weight at the most, and half of it at the least; `weight` says what a value weighs.
    pub(crate) fn new(bound: usize, weight: fn(&V) -> usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            young_weight: 0,
            bound,
            weight,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// The value of a key.
    pub(crate) fn get<Q>(&mut self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        if !self.young.contains_key(key) {
            let (key, value) = self.old.remove_entry(key)?;
            self.add(key, value);
        }
        self.young.get(key)
    }

    /// Takes note of the value of a key, in place of a former one.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        self.remove(&key);
        self.add(key, value);
    }

    /// Changes the value of a key. Says whether it is there.
    pub(crate) fn change<Q>(&mut self, key: &Q, change: impl FnOnce(&mut V)) -> bool
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let young = self.young.remove_entry(key);
        if let Some((_, value)) = &young {
            self.young_weight -= (self.weight)(value);
        }
        let Some((key, mut value)) = young.or_else(|| self.old.remove_entry(key)) else {
            return false;
        };
        change(&mut value);
        self.add(key, value);
        true
    }

    /// Adds what is not there.
    fn add(&mut self, key: K, value: V) {
        let weight = (self.weight)(&value);
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
        if let Some(value) = self.young.remove(key) {
            self.young_weight -= (self.weight)(&value);
        }
        self.old.remove(key);
    }

    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&mut V) -> bool) {
        self.young.retain(|_, value| keep(value));
        self.old.retain(|_, value| keep(value));
        self.young_weight = self.young.values().map(self.weight).sum();
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
        let mut cache = Cache::new(100, |_| 1);
        for key in 0..10_000 {
            cache.insert(key, key * 2);
            assert!(cache.len() <= 100);
            assert_eq!(cache.get(&0), Some(&0), "used all the time");
        }
        assert_eq!(cache.get(&9_999), Some(&19_998));
        assert_eq!(cache.get(&500), None);
    }

    #[test]
    fn a_key_has_one_value() {
        let mut cache = Cache::new(10, |_| 1);
        for value in 0..20 {
            cache.insert('a', value);
            assert_eq!(cache.get(&'a'), Some(&value));
            cache.insert('b', value);
        }
        cache.remove(&'a');
        assert_eq!(cache.get(&'a'), None);
    }

    #[test]
    fn what_is_told_again_and_again_pushes_nothing_out() {
        let mut cache = Cache::new(100, |_| 1);
        for key in 0..40 {
            cache.insert(key, key);
        }
        for value in 0..10_000 {
            cache.insert(0, value);
            cache.remove(&1);
            cache.insert(1, value);
            cache.change(&2, |known| *known = value);
        }
        assert_eq!(cache.len(), 40);
    }

    #[test]
    fn what_grows_or_shrinks_weighs_what_it_is() {
        let mut cache = Cache::new(100, Vec::len);
        for key in 0..100 {
            cache.insert(key, Vec::new());
            assert!(cache.change(&key, |value| value.extend([0; 10])));
        }
        assert!(cache.len() <= 10, "{}", cache.len());
        let mut cache = Cache::new(100, Vec::len);
        for key in 0..5 {
            cache.insert(key, vec![0; 10]);
        }
        cache.retain(|value| {
            value.clear();
            true
        });
        for key in 5..65 {
            cache.insert(key, vec![0]);
        }
        assert!(cache.get(&0).is_some(), "one half was full once");
        assert!(!cache.change(&1_000, |_| {}));
    }
}
