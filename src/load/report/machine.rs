//! The machine a run was made on.

/// What a speed depends on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Machine {
    /// Cores that we may use.
    pub cores: u64,
    /// Its name for itself.
    pub processor: String,
    /// Octets.
    pub memory: u64,
    /// Name and release.
    pub kernel: String,
}

impl Machine {
    /// This one; what it does not tell is empty.
    pub fn this() -> Self {
        let read = |file| std::fs::read_to_string(file).unwrap_or_default();
        Self {
            cores: std::thread::available_parallelism().map_or(0, |cores| cores.get() as u64),
            processor: super::cut(value(&read("/proc/cpuinfo"), "model name").unwrap_or_default()),
            memory: memory(&read("/proc/meminfo")),
            kernel: super::cut(&format!("{} {}", std::env::consts::OS, read("/proc/sys/kernel/osrelease").trim())),
        }
    }
}

/// The first value under a key of lines `key : value`.
fn value<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    text.lines()
        .find_map(|line| line.split_once(':').filter(|(name, _)| name.trim() == key).map(|(_, value)| value.trim()))
}

fn memory(meminfo: &str) -> u64 {
    let kib = value(meminfo, "MemTotal").and_then(|value| value.strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_processor_are_found_in_what_the_kernel_says() {
        assert_eq!(memory("MemFree: 1 kB\nMemTotal:       24627328 kB\nBuffers: 9 kB\n"), 24_627_328 << 10);
        assert_eq!(memory("MemTotal: much\n"), 0);
        assert_eq!(value("processor\t: 0\nmodel name\t: A: B\nmodel name\t: C\n", "model name"), Some("A: B"));
        assert!(Machine::this().cores > 0);
    }
}
