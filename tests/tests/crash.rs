//! The flights example killed again and again. `make crash` does the same for longer.

use lotic_tests::crash::Campaign;

#[test]
fn a_hundred_kills_leave_what_an_undisturbed_run_leaves() {
    let mut told = Vec::new();
    let outcome = Campaign { kills: 100, seed: 20130101 }.run(&mut told);
    println!("{}", String::from_utf8_lossy(&told));
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}
