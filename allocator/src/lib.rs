//! The memory allocator of both services: mimalloc, for Rust and (as it takes the place of malloc) for RocksDB.

use std::ffi::c_long;

use libmimalloc_sys::{mi_option_set_default, mi_option_t};
pub use mimalloc::MiMalloc;

/// How long pages without anything in them are kept, in milliseconds. mimalloc keeps them for a second. Entries are allocated by one thread
/// and freed by another, and RocksDB builds its files in threads of its own, so each thread would hold pages for the others' work: with a
/// million groups a fifth of a node's memory. No cost in throughput was found (docs/performance.md).
const KEPT_MS: c_long = 1;

/// `mi_option_purge_delay` of mimalloc's `mimalloc.h`, which the bindings do not name.
const PURGE_DELAY: mi_option_t = 15;

/// Makes mimalloc give unused pages back to the system soon, unless the environment says otherwise (`MIMALLOC_PURGE_DELAY`, in
/// milliseconds). To be called before there are threads.
pub fn give_back_soon() {
    #[allow(unsafe_code)]
    // SAFETY: this stores a number in mimalloc's table of options, whose length the option's number does not exceed, while no other thread
    // reads it.
    unsafe {
        mi_option_set_default(PURGE_DELAY, KEPT_MS);
    }
}

#[cfg(test)]
mod tests {
    use libmimalloc_sys::mi_option_get;

    use super::*;

    #[test]
    #[allow(unsafe_code)]
    fn the_option_is_the_one_that_is_meant() {
        // SAFETY: reads a number from mimalloc's table of options.
        let get = || unsafe { mi_option_get(PURGE_DELAY) };
        // The only option that is a second, in the version that is locked.
        assert_eq!(get(), 1000, "mimalloc's options are numbered anew, or MIMALLOC_PURGE_DELAY is set");
        give_back_soon();
        assert_eq!(get(), KEPT_MS);
    }
}
