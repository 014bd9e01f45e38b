//! What this process takes of memory.

/// In bytes; 0: the system does not tell.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Now.
    pub resident: u64,
    /// The most so far.
    pub peak: u64,
}

impl Memory {
    /// proc(5) says so.
    pub fn now() -> Memory {
        Memory::told_by(&std::fs::read_to_string("/proc/self/status").unwrap_or_default())
    }

    fn told_by(status: &str) -> Memory {
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"));
            line.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
        };
        Memory { resident: bytes("VmRSS:"), peak: bytes("VmHWM:") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_found() {
        let memory = Memory::told_by("Name:\tkivafs\nVmHWM:\t    2048 kB\nVmRSS:\t     1024 kB\n");
        assert_eq!((memory.resident, memory.peak), (1 << 20, 2 << 20));
        assert!(Memory::now().peak > 0);
        assert_eq!(Memory::told_by("VmRSS: many kB").resident, 0);
    }
}
