//! A line of text that a child writes and its parent can still read after the child was killed.

use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;
use nix::libc;

/// One anonymous page shared by a process and the children it clones.
#[derive(Debug)]
pub struct SharedLine {
    page: *mut u8,
}

const PAGE: usize = 4096;
const HEAD: usize = size_of::<AtomicU32>();

impl SharedLine {
    /// Maps the page, empty.
    pub fn new() -> Result<Self, Errno> {
        // SAFETY: a new anonymous mapping; no address is asked for, so nothing existing is replaced.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        Ok(Self { page: page.cast() })
    }

    fn length(&self) -> &AtomicU32 {
        // SAFETY: the page is mapped as long as self lives, aligned to a page, and its first four bytes are used as nothing else.
        unsafe { &*self.page.cast::<AtomicU32>() }
    }

    /// Replaces the text; what is longer than the page is cut.
    pub fn set(&self, text: &str) {
        let length = text.len().min(PAGE - HEAD);
        self.length().store(0, Ordering::Release);
        // SAFETY: length bytes fit behind the head of the page, which is ours and writable; text does not overlap it.
        unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), self.page.add(HEAD), length) };
        self.length().store(length as u32, Ordering::Release);
    }

    /// The text that was set last, by whichever process.
    pub fn get(&self) -> String {
        let length = (self.length().load(Ordering::Acquire) as usize).min(PAGE - HEAD);
        // SAFETY: length bytes lie within the mapped page; a writer that is still alive could change them while they are
        // copied, which the callers rule out by reading after its end.
        let bytes = unsafe { std::slice::from_raw_parts(self.page.add(HEAD), length) };
        String::from_utf8_lossy(bytes).into_owned()
    }
}

impl Drop for SharedLine {
    fn drop(&mut self) {
        // SAFETY: the page was mapped by new, with this size, and no reference into it outlives self.
        unsafe { libc::munmap(self.page.cast(), PAGE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_text_is_read_back_and_cut_to_the_page() {
        let line = SharedLine::new().unwrap();
        assert_eq!(line.get(), "");
        line.set("mount proc");
        line.set("mask");
        assert_eq!(line.get(), "mask");
        line.set(&"x".repeat(10_000));
        assert_eq!(line.get().len(), PAGE - HEAD);
    }
}
