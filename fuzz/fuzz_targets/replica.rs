//! Any bytes as a message of another node: no panic, and what is understood reads back as the same.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use libfuzzer_sys::fuzz_target;
use lb_user::pure::replica::{Ends, FRAME_MAX, Message, Opener, TAG_LENGTH};

const ENDS: Ends = Ends {
    connecting: (IpAddr::V4(Ipv4Addr::LOCALHOST), [0; 32]),
    accepting: (IpAddr::V4(Ipv4Addr::LOCALHOST), [1; 32]),
};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = Message::decode(bytes) {
        let encoded = message.encode();
        assert!(encoded.len() + TAG_LENGTH <= FRAME_MAX);
        assert_eq!(Message::decode(&encoded).as_ref(), Ok(&message));
    }
    let mut opener = Opener::new(b"secret", &ENDS).expect("an HMAC is as long as a key");
    assert!(opener.open(&mut bytes.to_vec()).is_err(), "forged");
});
