//! The file that this process runs, exchanged without execve: prctl(2) PR_SET_MM_MAP.
//!
//! The kernel takes another file as /proc/self/exe once nothing of the old one is mapped. So the same pages are mapped again
//! in their places, from the new file; what the program has written meanwhile is carried over.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc;

/// The kernel's `struct prctl_mm_map` (linux/prctl.h).
#[repr(C)]
struct MemoryMap {
    addresses: [u64; 11],
    auxv: *const u64,
    auxv_size: u32,
    exe_fd: u32,
}

/// Where the addresses of `struct prctl_mm_map` stand in /proc/self/stat, counted from 1 (proc_pid_stat(5)): start_code,
/// end_code, start_data, end_data, start_brk, brk (in no field), start_stack, arg_start, arg_end, env_start, env_end.
const FIELDS: [usize; 11] = [26, 27, 45, 46, 47, 0, 28, 48, 49, 50, 51];
const BRK: usize = 5;

/// Makes `file` the executable of this process. It must be the file that the program was started from, seen by another
/// mount, open for reading, and of a constant content.
///
/// Allowed to whoever may restore processes (CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE in the user namespace), where the
/// kernel is built with that (CONFIG_CHECKPOINT_RESTORE). After an error the program goes on as it was.
pub fn exchange(file: BorrowedFd<'_>) -> Result<(), Errno> {
    let addresses = addresses().ok_or(Errno::ENOTSUP)?;
    let image = Image::of_this_process().ok_or(Errno::ENOTSUP)?;
    for segment in image.segments(libc::PT_LOAD).filter(|segment| !is_writable(segment)) {
        image.map_again(segment, file)?;
    }
    for row in image.written() {
        image.copy(row)?;
    }
    for segment in image.segments(libc::PT_GNU_RELRO) {
        image.close(segment)?;
    }
    let map = MemoryMap { addresses, auxv: std::ptr::null(), auxv_size: 0, exe_fd: file.as_raw_fd() as u32 };
    // SAFETY: the kernel reads one structure of this layout and size; it stores the addresses, which are its own, and takes
    // its own reference of the file.
    let done =
        unsafe { libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_MAP, &raw const map, size_of::<MemoryMap>(), 0usize) };
    Errno::result(done).map(drop)
}

/// What the kernel notes of this process's memory now, in the order of [`MemoryMap`].
fn addresses() -> Option<[u64; 11]> {
    let mut buffer = [0; 1024];
    let length = File::open("/proc/self/stat").ok()?.read(&mut buffer).ok()?;
    // The name of the program is the second field, in parentheses, and may hold anything.
    let end = buffer[..length].iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(&buffer[end + 1..length]).ok()?;
    let mut addresses = [0; 11];
    for (field, text) in (3..).zip(rest.split_ascii_whitespace()) {
        if let Some(index) = FIELDS.iter().position(|&wanted| wanted == field) {
            addresses[index] = text.parse().ok()?;
        }
    }
    // SAFETY: sbrk(0) only tells where the heap ends.
    addresses[BRK] = unsafe { libc::sbrk(0) } as u64;
    Some(addresses)
}

/// The program's segments as they lie in memory.
struct Image {
    headers: &'static [libc::Elf64_Phdr],
    /// What a position-independent program adds to its addresses.
    bias: usize,
    page: usize,
}

fn is_writable(segment: &libc::Elf64_Phdr) -> bool {
    segment.p_flags & libc::PF_W != 0
}

impl Image {
    fn of_this_process() -> Option<Self> {
        // SAFETY: getauxval reads what the kernel told the program at its start.
        let [table, count, page] = [libc::AT_PHDR, libc::AT_PHNUM, libc::AT_PAGESZ]
            .map(|key| unsafe { usize::try_from(libc::getauxval(key)).unwrap_or(0) });
        if table == 0 || page == 0 {
            return None;
        }
        // SAFETY: the kernel says that so many program headers are mapped there; they are read-only and stay (map_again
        // puts the same bytes in their place).
        let headers = unsafe { std::slice::from_raw_parts(table as *const libc::Elf64_Phdr, count) };
        let own = headers.iter().find(|header| header.p_type == libc::PT_PHDR)?;
        Some(Self { headers, bias: table.wrapping_sub(own.p_vaddr as usize), page })
    }

    fn segments(&self, kind: u32) -> impl Iterator<Item = &libc::Elf64_Phdr> {
        self.headers.iter().filter(move |header| header.p_type == kind)
    }

    /// The pages of a segment that come from the file.
    fn pages(&self, segment: &libc::Elf64_Phdr) -> (usize, usize) {
        let start = self.bias.wrapping_add(segment.p_vaddr as usize);
        let end = start + segment.p_filesz as usize;
        (start & !(self.page - 1), end.next_multiple_of(self.page))
    }

    /// What has never been written to.
    fn map_again(&self, segment: &libc::Elf64_Phdr, file: BorrowedFd<'_>) -> Result<(), Errno> {
        let (start, end) = self.pages(segment);
        let executable = if segment.p_flags & libc::PF_X == 0 { 0 } else { libc::PROT_EXEC };
        let (protection, flags) = (libc::PROT_READ | executable, libc::MAP_PRIVATE | libc::MAP_FIXED);
        let offset = (segment.p_offset as usize & !(self.page - 1)) as libc::off_t;
        // SAFETY: the pages that are replaced show what the file holds at `offset`, and `file` is the same file: the new ones
        // hold the same bytes, those of the code that runs now included. The kernel exchanges them in one step.
        let mapped = unsafe { libc::mmap(start as *mut _, end - start, protection, flags, file.as_raw_fd(), offset) };
        if mapped == libc::MAP_FAILED { Err(Errno::last()) } else { Ok(()) }
    }

    /// The pages of all segments that can be written to, where these lie side by side in one piece.
    fn written(&self) -> Vec<(usize, usize)> {
        let mut rows: Vec<(usize, usize)> = Vec::new();
        for (start, end) in
            self.segments(libc::PT_LOAD).filter(|segment| is_writable(segment)).map(|one| self.pages(one))
        {
            match rows.last_mut() {
                Some(row) if row.1 == start => row.1 = end,
                _ => rows.push((start, end)),
            }
        }
        rows
    }

    /// Puts a copy in the place of pages that have been written to.
    fn copy(&self, (start, end): (usize, usize)) -> Result<(), Errno> {
        let length = end - start;
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at a place that the kernel chooses.
        let copy = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0) };
        if copy == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        // SAFETY: the pages are mapped and readable, the copy is mapped, writable, and elsewhere; both are `length` long.
        // There is no other thread, and this one writes to no static variable between here and the exchange: what is put in
        // the place of the pages is what they hold.
        let moved = unsafe {
            std::ptr::copy_nonoverlapping(start as *const u8, copy.cast::<u8>(), length);
            libc::mremap(copy, length, length, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, start as *mut libc::c_void)
        };
        if moved == libc::MAP_FAILED { Err(Errno::last()) } else { Ok(()) }
    }

    /// Takes the right to write from what libc had taken it from at the start: the whole pages of the segment.
    fn close(&self, segment: &libc::Elf64_Phdr) -> Result<(), Errno> {
        let start = self.bias.wrapping_add(segment.p_vaddr as usize);
        let end = (start + segment.p_memsz as usize) & !(self.page - 1);
        let start = start & !(self.page - 1);
        // SAFETY: the pages are the program's, and nothing has written to them since libc made them read-only.
        Errno::result(unsafe { libc::mprotect(start as *mut _, end - start, libc::PROT_READ) }).map(drop)
    }
}
