//! (to come)
pub struct FileDisk;
pub enum Hold {}
