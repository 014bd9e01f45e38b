//! Who creates, renames, links and removes, in all directories at once.

use crate::random::Random;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// As many of its entries are there at a time, at most.
const ENTRIES_MAX: usize = 500;

/// One of them: no two have to do with the same names, and no name is ever used twice.
pub struct Changer {
    number: usize,
    random: Random,
    dirs: Vec<PathBuf>,
    next: u64,
    /// Its entries: which directory, and the name.
    left: Vec<(usize, String)>,
}

impl Changer {
    pub fn new(seed: u64, number: usize, dirs: &[&Path]) -> Changer {
        let random = Random::new(seed * 77 + number as u64);
        let dirs = dirs.iter().map(|dir| dir.to_path_buf()).collect();
        Changer { number, random, dirs, next: 0, left: Vec::new() }
    }

    pub fn work_until(&mut self, done: &AtomicBool) {
        while !done.load(Ordering::Relaxed) {
            match self.random.within(0..10) {
                _ if self.left.is_empty() => self.make(),
                0..4 if self.left.len() < ENTRIES_MAX => self.make(),
                4 => self.link(),
                5..8 => self.rename(),
                _ => self.remove(),
            }
        }
    }

    /// What it has left in that directory.
    pub fn left_in(&self, dir: usize) -> impl Iterator<Item = Vec<u8>> + '_ {
        self.left.iter().filter(move |(at, _)| *at == dir).map(|(_, name)| name.clone().into_bytes())
    }

    fn make(&mut self) {
        let new = self.new_name();
        let path = self.path(&new);
        if self.random.one_in(5) {
            fs::write(path, [1; 3000]).unwrap();
        } else {
            File::create_new(path).unwrap();
        }
        self.left.push(new);
    }

    fn link(&mut self) {
        let (new, at) = (self.new_name(), self.random.within(0..self.left.len()));
        fs::hard_link(self.path(&self.left[at]), self.path(&new)).unwrap();
        self.left.push(new);
    }

    fn rename(&mut self) {
        let (new, at) = (self.new_name(), self.random.within(0..self.left.len()));
        fs::rename(self.path(&self.left[at]), self.path(&new)).unwrap();
        self.left[at] = new;
    }

    fn remove(&mut self) {
        let at = self.random.within(0..self.left.len());
        let old = self.left.swap_remove(at);
        fs::remove_file(self.path(&old)).unwrap();
    }

    fn new_name(&mut self) -> (usize, String) {
        self.next += 1;
        let dir = self.random.within(0..self.dirs.len());
        (dir, format!("{:08x} passes {} {}", self.random.next() as u32, self.number, self.next))
    }

    fn path(&self, (dir, name): &(usize, String)) -> PathBuf {
        self.dirs[*dir].join(name)
    }
}
