//! Stock logic modules for GoBroke.
