//! A panic ends the program.
//!
//! Half of a program that lost a thread looks alive and moves nothing; a supervisor starts a dead one again. The programs are built to unwind only
//! for the few places that deal with a library's panics themselves.

use std::process;

/// From now on a panic is printed and ends the program with SIGABRT, on whatever thread, unless `is_dealt_with` says that the place where it
/// happened deals with it.
pub fn end_the_program(is_dealt_with: fn() -> bool) {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !is_dealt_with() {
            print(panic);
            process::abort();
        }
    }));
}
