//! How much memory the system allows this process: [`Allowance`].
//!
//! A control group (of a container, or of a systemd unit with `MemoryMax=`) kills what takes more, without a word that
//! the process itself could say, and a machine does the same with what takes more than it has. So the default
//! `memory_limit` keeps below that, and one that does not fit is warned of. Read from `/proc` and `/sys/fs/cgroup`, of
//! both versions (cgroup-v2.rst and cgroup-v1/memory.rst of the kernel's documentation); where they tell nothing,
//! nothing is assumed.

use std::fs;
use std::path::{Path, PathBuf};

/// What a run takes beside its `memory_limit` is a quarter of that at most, or this where that is less: programs, stacks,
/// what the allocator keeps. Measured for the README.
const BESIDE: u64 = 16 << 20;

/// From here on a number means that there is no limit; cgroup v1 has no word for it.
const NONE: u64 = 1 << 60;

/// The files that limit a control group. Above `memory.high` it is slowed down until it stands still.
const UNIFIED: [&str; 2] = ["memory.max", "memory.high"];
const LEGACY: [&str; 1] = ["memory.limit_in_bytes"];

/// The most that this process may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Allowance {
    pub(crate) bytes: u64,
    /// Where that is said.
    pub(crate) file: PathBuf,
}

impl Allowance {
    /// What the system allows now, if it tells.
    pub(crate) fn find() -> Option<Self> {
        Self::find_in(Path::new("/"))
    }

    /// The same of a system whose files stand below `root`.
    fn find_in(root: &Path) -> Option<Self> {
        let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        let mut all: Vec<Allowance> =
            groups.lines().flat_map(|line| of_group(&root.join("sys/fs/cgroup"), line)).collect();
        all.extend(of_machine(root.join("proc/meminfo")));
        all.into_iter().min_by_key(|allowance| allowance.bytes)
    }

    /// The largest `memory_limit` that fits, in whole MiB.
    pub(crate) fn fitting(&self) -> usize {
        let bytes = (self.bytes / 5 * 4).min(self.bytes.saturating_sub(BESIDE));
        usize::try_from(bytes >> 20 << 20).unwrap_or(usize::MAX)
    }

    /// What to say of a `memory_limit`, if it does not fit.
    pub(crate) fn complaint(&self, memory_limit: usize) -> Option<String> {
        let fitting = self.fitting();
        (memory_limit > fitting).then(|| {
            format!(
                "processing.memory_limit is {} MiB, and {} allows this process {} MiB in all: it may be killed without \
                 a word; {} MiB fit",
                memory_limit.div_ceil(1 << 20),
                self.file.display(),
                self.bytes >> 20,
                fitting >> 20,
            )
        })
    }
}

/// The limits of the groups that a line of `/proc/self/cgroup` tells of: of one, and of all that it stands in.
fn of_group(mounts: &Path, line: &str) -> Vec<Allowance> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else { return Vec::new() };
    let (mounts, names) = match controllers {
        // Beside the other version it stands in a folder of its own.
        "" => (vec![mounts.to_owned(), mounts.join("unified")], &UNIFIED[..]),
        _ if controllers.split(',').any(|name| name == "memory") => {
            (vec![mounts.join("memory")], &LEGACY[..])
        }
        _ => return Vec::new(),
    };
    let group = Path::new(group.trim_start_matches('/'));
    // In a container the path is often that outside of it, and only the mount itself is there.
    let places = mounts.iter().flat_map(|mount| group.ancestors().map(|above| mount.join(above)));
    let files = places.flat_map(|place| names.iter().map(move |name| place.join(name)));
    files.filter_map(|file| Some(Allowance { bytes: number(&file)?, file })).collect()
}

fn number(file: &Path) -> Option<u64> {
    let bytes = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    (bytes < NONE).then_some(bytes)
}

fn of_machine(file: PathBuf) -> Option<Allowance> {
    let text = fs::read_to_string(&file).ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(Allowance { bytes: kibibytes << 10, file })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: &str = "MemTotal:        4194304 kB\nMemFree:          123456 kB\n";

    /// A system with these files.
    fn system(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    /// How many MiB are allowed there, and by which file.
    fn found(files: &[(&str, &str)]) -> Option<(u64, String)> {
        let root = system(files);
        let found = Allowance::find_in(root.path())?;
        let file = found.file.strip_prefix(root.path()).unwrap().display().to_string();
        Some((found.bytes >> 20, file))
    }

    #[test]
    fn the_least_of_a_group_and_all_above_it_counts() {
        let files = [
            ("proc/self/cgroup", "0::/a.slice/b.service\n"),
            ("proc/meminfo", MEMORY),
            ("sys/fs/cgroup/a.slice/b.service/memory.max", "max\n"),
            ("sys/fs/cgroup/a.slice/memory.max", "209715200\n"),
            ("sys/fs/cgroup/a.slice/memory.high", "max\n"),
        ];
        assert_eq!(found(&files), Some((200, "sys/fs/cgroup/a.slice/memory.max".into())));
        let mut slowed = files;
        slowed[4].1 = "104857600\n";
        assert_eq!(found(&slowed), Some((100, "sys/fs/cgroup/a.slice/memory.high".into())));
    }

    #[test]
    fn the_first_version_is_read_where_memory_is_its_controller() {
        let files = [
            ("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/x/y\n0::/\n"),
            ("proc/meminfo", MEMORY),
            ("sys/fs/cgroup/memory/x/y/memory.limit_in_bytes", "134217728\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/cpu,cpuacct/x/memory.limit_in_bytes", "1\n"),
        ];
        assert_eq!(found(&files), Some((128, "sys/fs/cgroup/memory/x/y/memory.limit_in_bytes".into())));
    }

    #[test]
    fn in_a_container_the_mount_is_its_group() {
        for (line, file) in [
            ("0::/\n", "sys/fs/cgroup/memory.max"),
            ("0::/../outside\n", "sys/fs/cgroup/memory.max"),
            ("9:memory:/docker/0123\n", "sys/fs/cgroup/memory/memory.limit_in_bytes"),
            ("0::/docker/0123\n", "sys/fs/cgroup/unified/memory.max"),
        ] {
            let files = [("proc/self/cgroup", line), ("proc/meminfo", MEMORY), (file, "67108864\n")];
            assert_eq!(found(&files), Some((64, file.into())), "{line}");
        }
    }

    #[test]
    fn without_a_group_it_is_what_the_machine_has_and_without_that_nothing() {
        assert_eq!(found(&[("proc/meminfo", MEMORY)]), Some((4096, "proc/meminfo".into())));
        assert_eq!(
            found(&[("proc/self/cgroup", "garbage\n0::\n1:\n:::\n"), ("proc/meminfo", "MemTotal: x kB\n")]),
            None
        );
        assert_eq!(found(&[("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "-5\n")]), None);
    }

    #[test]
    fn what_fits_leaves_room_for_the_rest() {
        let allowance = |mebibytes: u64| Allowance { bytes: mebibytes << 20, file: "memory.max".into() };
        assert_eq!(
            [0, 10, 64, 80, 320, 512].map(|of| allowance(of).fitting() >> 20),
            [0, 0, 48, 64, 256, 409]
        );
        assert_eq!(allowance(320).complaint(256 << 20), None);
        assert_eq!(allowance(64).complaint(48 << 20), None, "the goal for files");
        let complaint = allowance(200).complaint(256 << 20).unwrap();
        assert_eq!(
            complaint,
            "processing.memory_limit is 256 MiB, and memory.max allows this process 200 MiB in all: it may be killed \
             without a word; 160 MiB fit"
        );
    }
}
