//! Drives a program under test from one BPF_PROG_TEST_RUN call.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "program and licence sections have unmangled names")]

mod drive;
mod encap;
mod pace;
mod poison;
mod veth;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The compiler removes it: nothing here can panic, and a loop would not pass the verifier.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
