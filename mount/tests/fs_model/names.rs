//! Operations on names: making, removing, moving, linking.

use crate::World;
use crate::model::*;
use kivafs_mount::fs::*;

impl World {
    pub fn create(&mut self) {
        let ((dir, parent), name, caller) = (self.dir(), self.name(), self.caller());
        let if_exists = self.random.pick(&[IfExists::Fail, IfExists::Open, IfExists::Truncate]);
        self.note(format!("create {:?} in {parent} {if_exists:?}", name.escape_ascii().to_string()));
        let old = self.model.nodes[&dir].children.get(&name).copied();
        let expected = match old.map(|id| self.model.nodes[&id].kind) {
            None => refused(&name),
            Some(_) if if_exists == IfExists::Fail => Some(FsError::Exists),
            Some(FileType::Regular) => None,
            Some(FileType::Directory) => Some(FsError::IsADirectory),
            Some(_) => Some(FsError::Invalid),
        };
        let Some(attr) = self.expect(expected, |fs| fs.create(caller, parent, &name, 0o100644, if_exists)) else {
            return;
        };
        let id = match old {
            None => self.made(dir, &name, new_node(FileType::Regular, 0o644, caller), attr),
            Some(id) => {
                self.hold(attr.ino);
                let node = self.model.nodes.get_mut(&id).unwrap();
                if if_exists == IfExists::Truncate {
                    node.data.clear();
                    (node.mtime, node.ctime) = (now(), now());
                    if caller.uid != 0 {
                        kill(&mut node.perm);
                    }
                }
                id
            }
        };
        self.model.nodes.get_mut(&id).unwrap().opens += 1;
        self.check_attr(id, &attr);
        if self.random.chance(70) {
            self.release(id);
        }
        self.check_node(dir);
    }

    pub fn make(&mut self) {
        let ((dir, parent), name, caller) = (self.dir(), self.name(), self.caller());
        self.note(format!("make {:?} in {parent}", name.escape_ascii().to_string()));
        let exists = self.model.nodes[&dir].children.contains_key(&name).then_some(FsError::Exists);
        let expected = refused(&name).or(exists);
        let (attr, node) = match self.random.below(4) {
            0 | 1 => (
                self.expect(expected, |fs| fs.mkdir(caller, parent, &name, 0o1755)),
                new_node(FileType::Directory, 0o1755, caller),
            ),
            2 => {
                let target = self.random.pick(&[1usize, 20, 960, 961, 4095]);
                let mut node = new_node(FileType::Symlink, 0o777, caller);
                node.data = self.random.bytes(target).to_vec();
                (self.expect(expected, |fs| fs.symlink(caller, parent, &name, &node.data)), node)
            }
            _ => {
                let (mode, kind) = self.random.pick(&[
                    (libc::S_IFIFO, FileType::Fifo),
                    (libc::S_IFSOCK, FileType::Socket),
                    (libc::S_IFCHR, FileType::CharDevice),
                    (libc::S_IFBLK, FileType::BlockDevice),
                    (libc::S_IFREG, FileType::Regular),
                ]);
                let mut node = new_node(kind, 0o640, caller);
                if matches!(kind, FileType::CharDevice | FileType::BlockDevice) {
                    node.rdev = 0x0102_0304;
                }
                (self.expect(expected, |fs| fs.mknod(caller, parent, &name, mode | 0o640, 0x0102_0304)), node)
            }
        };
        if let Some(attr) = attr {
            let id = self.made(dir, &name, node, attr);
            self.check_attr(id, &attr);
            self.check_node(id);
        }
        self.check_node(dir);
    }

    pub fn unlink(&mut self) {
        let (dir, parent) = self.dir();
        let name = self.known(dir);
        self.note(format!("unlink {:?} in {parent}", name.escape_ascii().to_string()));
        let id = self.model.nodes[&dir].children.get(&name).copied();
        let expected = match id.map(|id| self.model.nodes[&id].kind) {
            None if name.len() > 255 => Some(FsError::NameTooLong),
            None => Some(FsError::NotFound),
            Some(FileType::Directory) => Some(FsError::IsADirectory),
            Some(_) => None,
        };
        if self.expect(expected, |fs| fs.unlink(parent, &name)).is_some() {
            self.model.nodes.get_mut(&dir).unwrap().children.remove(&name);
            self.model.touch(dir);
            self.dropped(id.unwrap());
        }
        self.check_node(dir);
    }

    pub fn dropped(&mut self, id: Id) {
        let ino = self.model.nodes[&id].ino;
        if self.model.unlink(id) { self.gone(ino) } else { self.check_node(id) }
    }

    pub fn rmdir(&mut self) {
        let (dir, parent) = self.dir();
        let name = self.known(dir);
        self.note(format!("rmdir {:?} in {parent}", name.escape_ascii().to_string()));
        let id = self.model.nodes[&dir].children.get(&name).copied();
        let expected = match id.map(|id| &self.model.nodes[&id]) {
            None if name.len() > 255 => Some(FsError::NameTooLong),
            None => Some(FsError::NotFound),
            Some(node) if node.kind != FileType::Directory => Some(FsError::NotADirectory),
            Some(node) if !node.children.is_empty() => Some(FsError::NotEmpty),
            Some(_) => None,
        };
        if self.expect(expected, |fs| fs.rmdir(parent, &name)).is_some() {
            self.model.nodes.get_mut(&dir).unwrap().children.remove(&name);
            self.model.touch(dir);
            let node = self.model.nodes.remove(&id.unwrap()).unwrap();
            self.gone(node.ino);
        }
        self.check_node(dir);
    }

    pub fn rename(&mut self) {
        let ((from, from_ino), (to, to_ino)) = (self.dir(), self.dir());
        let from_name = self.known(from);
        let to_name = if self.random.chance(50) { self.known(to) } else { self.name() };
        let caller = self.caller();
        let mode = self.random.pick(&[
            RenameMode::Replace,
            RenameMode::NoReplace,
            RenameMode::Exchange,
            RenameMode::Whiteout(caller),
            RenameMode::WhiteoutNoReplace(caller),
        ]);
        let keeps_target = matches!(mode, RenameMode::NoReplace | RenameMode::WhiteoutNoReplace(_));
        self.note(format!(
            "rename {:?} in {from_ino} to {:?} in {to_ino} {mode:?}",
            from_name.escape_ascii().to_string(),
            to_name.escape_ascii().to_string()
        ));
        let moved = self.model.nodes[&from].children.get(&from_name).copied();
        let target = self.model.nodes[&to].children.get(&to_name).copied();
        let is_dir = |id: Id| self.model.nodes[&id].kind == FileType::Directory;
        let unknown = |name: &[u8]| if name.len() > 255 { FsError::NameTooLong } else { FsError::NotFound };
        let hidden = |name: &[u8]| name.len() > 255 || name == b".kivafs";
        let expected = match (moved, target) {
            _ if hidden(&from_name) => Some(unknown(&from_name)),
            _ if hidden(&to_name) && mode == RenameMode::Exchange => Some(unknown(&to_name)),
            _ if hidden(&to_name) => refused(&to_name),
            (None, _) => Some(FsError::NotFound),
            (Some(id), _) if is_dir(id) && self.model.is_under(to, id) => Some(FsError::Invalid),
            (_, Some(_)) if keeps_target => Some(FsError::Exists),
            (_, None) if mode == RenameMode::Exchange => Some(FsError::NotFound),
            (Some(id), Some(target)) if id == target => None,
            (_, Some(target)) if mode == RenameMode::Exchange => {
                (is_dir(target) && self.model.is_under(from, target)).then_some(FsError::Invalid)
            }
            (Some(id), Some(target)) => match (is_dir(id), is_dir(target)) {
                (true, false) => Some(FsError::NotADirectory),
                (false, true) => Some(FsError::IsADirectory),
                (true, true) if !self.model.nodes[&target].children.is_empty() => Some(FsError::NotEmpty),
                _ => None,
            },
            (Some(_), None) => None,
        };
        let done = self.expect(expected, |fs| fs.rename((from_ino, &from_name), (to_ino, &to_name), mode));
        let same = moved == target;
        if let (Some(()), false, Some(id)) = (done, same, moved) {
            self.model.nodes.get_mut(&from).unwrap().children.remove(&from_name);
            self.model.nodes.get_mut(&to).unwrap().children.insert(to_name, id);
            let node = self.model.nodes.get_mut(&id).unwrap();
            (node.parent, node.ctime) = (to, now());
            self.model.touch(from);
            self.model.touch(to);
            match target {
                Some(target) if mode == RenameMode::Exchange => {
                    self.model.nodes.get_mut(&from).unwrap().children.insert(from_name.clone(), target);
                    let node = self.model.nodes.get_mut(&target).unwrap();
                    (node.parent, node.ctime) = (from, now());
                    self.check_node(target);
                }
                Some(target) if self.model.nodes[&target].kind == FileType::Directory => {
                    let node = self.model.nodes.remove(&target).unwrap();
                    self.gone(node.ino);
                }
                Some(target) => self.dropped(target),
                None => {}
            }
            if let RenameMode::Whiteout(_) | RenameMode::WhiteoutNoReplace(_) = mode {
                let attr = self.call(|fs| fs.lookup(from_ino, &from_name)).unwrap();
                self.made(from, &from_name, new_node(FileType::CharDevice, 0, caller), attr);
            }
            self.check_node(id);
        }
        self.check_node(from);
        self.check_node(to);
    }

    pub fn link(&mut self) {
        let ((id, ino), (dir, parent), name) = (self.node(), self.dir(), self.name());
        self.note(format!("link {ino} as {:?} in {parent}", name.escape_ascii().to_string()));
        let node = &self.model.nodes[&id];
        let expected = match refused(&name) {
            Some(error) => Some(error),
            None if node.kind == FileType::Directory => Some(FsError::NotPermitted),
            None if node.links == 0 => Some(FsError::NotFound),
            None => self.model.nodes[&dir].children.contains_key(&name).then_some(FsError::Exists),
        };
        if let Some(attr) = self.expect(expected, |fs| fs.link(ino, parent, &name)) {
            self.hold(ino);
            let node = self.model.nodes.get_mut(&id).unwrap();
            node.links += 1;
            node.ctime = now();
            self.model.nodes.get_mut(&dir).unwrap().children.insert(name, id);
            self.model.touch(dir);
            self.check_attr(id, &attr);
        }
        self.check_node(id);
        self.check_node(dir);
    }
}
