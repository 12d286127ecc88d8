/// What the commands of a build are kept within, beside time and silence. By default nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes, of all processes of a command together.
    pub memory: Option<u64>,
    /// Processes and threads of a command at once.
    pub processes: Option<u32>,
    /// Bytes that a command prints; it is killed when it prints more.
    pub output: Option<u64>,
    /// It reaches itself alone.
    pub no_network: bool,
    /// It writes below the working directory alone.
    pub confined: bool,
}

impl Limits {
    pub fn is_none(&self) -> bool {
        *self == Limits::default()
    }
}
