//! The program's heap. A shim is idle nearly always, and there are many: what it keeps then is what it costs.
//!
//! glibc's malloc keeps up to seven freed pieces of each small size for the thread that freed them, spread over as many pages,
//! and no call takes them back: a quarter of a megabyte after some hundred execs. This heap joins what is freed with its
//! neighbours at once; it is slower under threads, of which the shim has one.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::{Mutex, PoisonError};

use dlmalloc::Dlmalloc;

/// The heap, for a program to name as its allocator.
#[derive(Debug)]
pub struct Heap;

static HEAP: Mutex<Dlmalloc> = Mutex::new(Dlmalloc::new());

fn heap<T>(work: impl FnOnce(&mut Dlmalloc) -> T) -> T {
    // A panic aborts this program, so a poisoned lock is one of a test.
    work(&mut HEAP.lock().unwrap_or_else(PoisonError::into_inner))
}

// SAFETY: each call is passed on with the same size and alignment to one heap, which is locked meanwhile and never moves; a piece
// is freed by the heap that gave it, because there is only one. None of it panics or allocates by itself.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        heap(|heap| unsafe { heap.malloc(layout.size(), layout.align()) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        heap(|heap| unsafe { heap.calloc(layout.size(), layout.align()) })
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises: it is a piece of this heap, with this layout.
        heap(|heap| unsafe { heap.free(piece, layout.size(), layout.align()) });
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller promises: it is a piece of this heap, with this layout.
        heap(|heap| unsafe { heap.realloc(piece, layout.size(), layout.align(), size) })
    }
}

/// Returns free memory to the kernel: the end of the heap, and segments of it that nothing is in.
pub(crate) fn give_back() {
    // SAFETY: it touches only what is free.
    heap(|heap| unsafe { heap.trim(0) });
}
