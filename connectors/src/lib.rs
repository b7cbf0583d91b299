//! What Lotic reads from and writes to: one folder for each external system.
//!
//! # Floor plan
//!
//! | module | owns |
//! |---|---|
//! | [`files`] | CSV and JSON-lines files, in and out |
//! | [`error`] | the one error |
//!
//! # Absent on purpose
//!
//! This crate knows the log and the engine, never the DSL. What a row means, what absent values look like and
//! which rows go together is the user's; a connector moves rows and knows how far it has come.

pub mod error;
pub mod files;

pub use error::{Error, ErrorKind, Result};
