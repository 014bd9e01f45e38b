//! Shared mappings of a part of a file, for the length of a call.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

const PAGE: usize = 4096;

/// A shared mapping of whole pages.
pub struct Mapping {
    address: *mut libc::c_void,
    /// From the first page's beginning.
    length: usize,
    /// Where in the first page the part begins.
    within: usize,
}

impl Mapping {
    /// Of `length` bytes from `offset` on, all of them within the file.
    pub fn new(file: &File, offset: usize, length: usize) -> io::Result<Mapping> {
        let within = offset % PAGE;
        let (start, length) = (offset - within, within + length);
        // SAFETY: a new mapping at an address that the kernel chooses.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                start as libc::off_t,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Mapping { address, length, within })
    }

    /// The part.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is this value's alone, as long as it lives, and the file as long as it:
        // nobody else has the file while this thread works.
        let all = unsafe { std::slice::from_raw_parts_mut(self.address.cast::<u8>(), self.length) };
        &mut all[self.within..]
    }

    /// What follows the part in its last page: beyond the end of the file, if the part ends there.
    pub fn rest_of_page(&self) -> &[u8] {
        let to = self.length.next_multiple_of(PAGE);
        // SAFETY: pages are mapped whole.
        unsafe { std::slice::from_raw_parts(self.address.cast::<u8>().add(self.length), to - self.length) }
    }

    pub fn sync(&self) -> io::Result<()> {
        // SAFETY: the mapping, whole.
        match unsafe { libc::msync(self.address, self.length, libc::MS_SYNC) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping, whole; nothing refers to it after this.
        let result = unsafe { libc::munmap(self.address, self.length) };
        assert_eq!(result, 0, "munmap: {}", io::Error::last_os_error());
    }
}
