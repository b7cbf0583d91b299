//! What Lotic is like to use: one program in `src/bin` for each idea, each run by the tests.
