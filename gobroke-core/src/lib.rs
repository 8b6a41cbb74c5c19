//! A message router.
