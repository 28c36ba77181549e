//! The programs behind the one that is attached, each reached by a tail call.

/// The stages behind the entry; the number is the place in the program array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Stage {
    Any4 = 0,
    Any6 = 1,
    Choose4 = 2,
    Choose6 = 3,
    Nat4 = 4,
    Nat6 = 5,
    Open4 = 6,
    Open6 = 7,
    Reply4 = 8,
    Reply6 = 9,
    Icmp4 = 10,
    Icmp6 = 11,
    Answer4 = 12,
    Answer6 = 13,
}

impl Stage {
    /// In the order of their numbers, with the names of their programs.
    pub const ALL: [(Stage, &'static str); 14] = [
        (Stage::Any4, "any4"),
        (Stage::Any6, "any6"),
        (Stage::Choose4, "choose4"),
        (Stage::Choose6, "choose6"),
        (Stage::Nat4, "nat4"),
        (Stage::Nat6, "nat6"),
        (Stage::Open4, "open4"),
        (Stage::Open6, "open6"),
        (Stage::Reply4, "reply4"),
        (Stage::Reply6, "reply6"),
        (Stage::Icmp4, "icmp4"),
        (Stage::Icmp6, "icmp6"),
        (Stage::Answer4, "answer4"),
        (Stage::Answer6, "answer6"),
    ];
}
