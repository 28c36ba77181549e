//! Reads a hash map in batches, which aya 0.14 cannot do.
#![expect(unsafe_code, reason = "the bpf system call takes pointers")]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use lb_common::flow::FlowKey;

/// The value of a flow record as the map holds it.
pub(super) type FlowWords = [u64; 8];

/// Where the next batch begins; a position in the map's buckets, valid however the map changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor(u64);

/// Room for one batch of flow records.
pub(super) struct Batch {
    keys: Vec<FlowKey>,
    values: Vec<FlowWords>,
}

impl Batch {
    pub(super) fn new(room: usize) -> Self {
        let key = FlowKey::from_words([0; 2]);
        Batch { keys: vec![key; room], values: vec![[0; 8]; room] }
    }

    /// Fills the batch from `from` (None: the start) and returns how many records it holds and where the
    /// next one begins (None: the map's end was reached).
    pub(super) fn read(
        &mut self,
        map: BorrowedFd<'_>,
        from: Option<Cursor>,
    ) -> io::Result<(usize, Option<Cursor>)> {
        let start = from.map(|cursor| cursor.0);
        let mut next = 0u64;
        let mut attribute = Attribute {
            in_batch: start.as_ref().map_or(0, |cursor| std::ptr::from_ref(cursor) as u64),
            out_batch: &raw mut next as u64,
            keys: self.keys.as_mut_ptr() as u64,
            values: self.values.as_mut_ptr() as u64,
            count: self.keys.len() as u32,
            map: map.as_raw_fd() as u32,
            element_flags: 0,
            flags: 0,
        };
        // SAFETY: the pointers are to live memory of this function and of `self`, as large as `count` says:
        // the caller's map has keys of 16 and values of 64 bytes, which the loader checked.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_MAP_LOOKUP_BATCH,
                &raw mut attribute,
                size_of::<Attribute>() as libc::c_uint,
            )
        };
        let count = attribute.count as usize;
        if result == 0 {
            return Ok((count, Some(Cursor(next))));
        }
        match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENOENT) => Ok((count, None)),
            error => Err(error),
        }
    }

    pub(super) fn records(&self, count: usize) -> impl Iterator<Item = (&FlowKey, &FlowWords)> {
        self.keys.iter().zip(&self.values).take(count)
    }
}

const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;

/// The part of `union bpf_attr` for batch commands (linux/bpf.h).
#[repr(C)]
struct Attribute {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}
