//! Looks for secrets in the memory of this process, as somebody would who gets hold of a core dump: in every page that can be written to,
//! whether it is in use or was freed. Stacks are left out: what a call leaves there is overwritten by the next ones, and no Rust code
//! can do anything about it.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File},
    os::unix::fs::FileExt,
};

use super::recorder::MASK;

/// Half a secret of 32 bytes. Each half is looked for by itself: an allocator writes its own words over the beginning of a block that was
/// freed.
const HALF: usize = 16;

/// Memory that is read at a time.
const WINDOW: usize = 1 << 20;

/// Arenas of glibc begin at multiples of this.
const ARENA: usize = 64 << 20;

/// What is looked for: the halves of secrets, masked like [`MASK`] says, and whose they are.
#[derive(Default)]
pub struct Wanted {
    halves: HashMap<[u8; HALF], usize>,
    /// The first two bytes of each, so that most of the memory is passed over at once.
    begins: Vec<bool>,
}

impl Wanted {
    /// Secrets, masked. They are named by their place in the list.
    pub fn new<'a>(masked: impl IntoIterator<Item = &'a [u8; 32]>) -> Self {
        let mut wanted = Wanted { halves: HashMap::new(), begins: vec![false; 1 << 16] };
        for (number, secret) in masked.into_iter().enumerate() {
            for half in secret.chunks_exact(HALF) {
                let half: [u8; HALF] = half.try_into().unwrap();
                wanted.begins[usize::from(u16::from_le_bytes([half[0], half[1]]))] = true;
                wanted.halves.insert(half, number);
            }
        }
        wanted
    }

    /// Which of them are somewhere in the memory.
    pub fn found(&self) -> BTreeSet<usize> {
        let memory = File::open("/proc/self/mem").unwrap();
        let mut window = vec![0; WINDOW];
        let own = window.as_ptr() as usize..window.as_ptr() as usize + WINDOW;
        let mut found = BTreeSet::new();
        for (start, end) in writable() {
            // Not the copy that is being looked at.
            for (start, end) in [(start, end.min(own.start.max(start))), (start.max(own.end.min(end)), end)] {
                self.look(&memory, &mut window, start, end, &mut found);
            }
        }
        window.fill(0);
        std::hint::black_box(&window);
        found
    }

    fn look(&self, memory: &File, window: &mut [u8], start: usize, end: usize, found: &mut BTreeSet<usize>) {
        let mut at = start;
        while at + HALF <= end {
            let length = WINDOW.min(end - at);
            // Memory that has gone meanwhile holds nothing.
            if memory.read_exact_at(&mut window[..length], at as u64).is_err() {
                return;
            }
            for bytes in window[..length].windows(HALF) {
                let begin = u16::from_le_bytes([bytes[0] ^ MASK, bytes[1] ^ MASK]);
                if self.begins[usize::from(begin)] {
                    let masked: [u8; HALF] = std::array::from_fn(|byte| bytes[byte] ^ MASK);
                    found.extend(self.halves.get(&masked));
                }
            }
            if length < WINDOW {
                return;
            }
            at += length - (HALF - 1);
        }
    }
}

/// The memory that can be written to, stacks left out.
fn writable() -> Vec<(usize, usize)> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let (mut found, mut guard) = (Vec::new(), None);
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, access) = (words.next().unwrap(), words.next().unwrap());
        let (start, end) = range.split_once('-').unwrap();
        let address = |hex| usize::from_str_radix(hex, 16).unwrap();
        let (start, end) = (address(start), address(end));
        // The stack of a thread has a page below it that nobody may touch.
        let is_stack = line.ends_with("[stack]") || (guard == Some(start) && start % ARENA != 0);
        if access.starts_with("rw") && !is_stack {
            found.push((start, end));
        }
        guard = access.starts_with("---").then_some(end);
    }
    found
}
