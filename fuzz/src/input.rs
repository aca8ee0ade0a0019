//! A fuzzer's bytes, read as numbers. When they are used up every number is zero.
#![allow(dead_code, unreachable_pub)] // Each body uses what it needs, in a library and in a test.

/// Bytes that steer a run.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Input(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn u8(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    pub fn flag(&mut self) -> bool {
        self.u8() & 1 == 1
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    pub fn u32(&mut self) -> u32 {
        u32::from(self.u16()) | u32::from(self.u16()) << 16
    }

    pub fn u64(&mut self) -> u64 {
        u64::from(self.u32()) | u64::from(self.u32()) << 32
    }

    /// One of `choices`.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.u8()) % choices.len()]
    }

    /// A distance: mostly short either way, sometimes anything. Wraps like a sequence number.
    pub fn distance(&mut self) -> u32 {
        match self.u8() % 8 {
            0..3 => 0,
            3 => u32::from(self.u8()),
            4 => u32::from(self.u8()).wrapping_neg(),
            5 => u32::from(self.u16()),
            6 => u32::from(self.u16()).wrapping_neg(),
            _ => self.u32(),
        }
    }

    /// Up to `count` bytes.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        self.take(usize::MAX)
    }
}
