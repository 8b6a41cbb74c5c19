//! GoBroke over Redis: one program, many instances.
