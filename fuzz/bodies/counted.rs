//! An allocator that counts what each thread holds, so that a test can say how much memory a call took.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// To be installed with `#[global_allocator]`.
pub struct Counted;

fn took(bytes: usize) {
    let held = HELD.get().wrapping_add(bytes);
    HELD.set(held);
    // What another thread made and this one freed can bring the count below nothing; that is no peak.
    if held < usize::MAX / 2 {
        PEAK.set(PEAK.get().max(held));
    }
}

fn gave(bytes: usize) {
    HELD.set(HELD.get().wrapping_sub(bytes));
}

// Safety: every call goes to the system's allocator with the arguments that came in; counting allocates nothing.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        gave(layout.size());
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // The old and the new one may be there at the same time.
        took(bytes);
        gave(layout.size());
        unsafe { System.realloc(place, layout, bytes) }
    }
}

/// Runs something; also says how many bytes this thread held at the worst moment beyond those it held before.
pub fn peak<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = run();
    (result, PEAK.get().saturating_sub(before))
}
