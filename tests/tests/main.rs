//! What holds for Lotic as a whole, in one binary. Where a new test belongs:
//!
//! - [`absences`]: what a package must not depend on, what only one file may do.
//!
//! A test of one package's own behaviour stands in that package, beside the code.

mod absences;
