//! What stands at the end of each command's help.

/// Examples, and what the command's exit status says.
macro_rules! with_exit_status {
    ($examples:literal) => {
        concat!($examples, "\n\nExit status: 0 done; 1 failed; 2 the command line is wrong.")
    };
}

pub(super) use with_exit_status;
