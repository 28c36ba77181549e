//! A frame over a part of a buffer: the host's only pointers.
#![expect(unsafe_code, reason = "the packet path takes its bounds as addresses")]

use lb_ebpf::frame::Frame;

/// The bytes from `start` to `end` of `words`, both counted in bytes; `start` is even.
pub(crate) fn frame(words: &mut [u16], start: usize, end: usize) -> Frame<'_> {
    assert!(start.is_multiple_of(2) && start <= end && end <= size_of_val(words));
    let base = words.as_mut_ptr().expose_provenance();
    // SAFETY: the bytes lie within `words` (asserted above), which is borrowed mutably as long as the frame
    // lives; `u16` aligns the buffer to 2, and `start` is even.
    unsafe { Frame::new(base + start, base + end) }
}
