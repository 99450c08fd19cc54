//! BER as a tree that can be changed and written again.

/// Enough of splitmix64 for choices that a seed repeats.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// One TLV: its identifier octets, and what is in it.
#[derive(Clone)]
pub struct Tlv {
    tag: Vec<u8>,
    /// Indefinite length in the original; written so again.
    indefinite: bool,
    value: Value,
    /// Written in place of the length octets.
    false_length: Option<Vec<u8>>,
}

#[derive(Clone)]
enum Value {
    Octets(Vec<u8>),
    Parts(Vec<Tlv>),
}

impl Tlv {
    /// Reads one; gives what follows. The input is a peer's or ours, hence well-formed.
    pub fn read(octets: &[u8]) -> (Self, &[u8]) {
        let mut end = 1;
        if octets[0] & 0x1f == 0x1f {
            while octets[end] & 0x80 != 0 {
                end += 1;
            }
            end += 1;
        }
        let (tag, rest) = octets.split_at(end);
        let constructed = tag[0] & 0x20 != 0;
        let (length, mut rest) = match rest[0] {
            0x80 => (None, &rest[1..]),
            short @ 0..0x80 => (Some(usize::from(short)), &rest[1..]),
            long => {
                let (number, rest) = rest[1..].split_at(usize::from(long & 0x7f));
                (Some(number.iter().fold(0, |sum, octet| sum << 8 | usize::from(*octet))), rest)
            }
        };
        let value = match length {
            None => {
                let mut parts = Vec::new();
                while !rest.starts_with(&[0, 0]) {
                    let (part, after) = Self::read(rest);
                    parts.push(part);
                    rest = after;
                }
                rest = &rest[2..];
                Value::Parts(parts)
            }
            Some(length) => {
                let (mut inside, after) = rest.split_at(length);
                rest = after;
                if constructed {
                    let mut parts = Vec::new();
                    while !inside.is_empty() {
                        let (part, after) = Self::read(inside);
                        parts.push(part);
                        inside = after;
                    }
                    Value::Parts(parts)
                } else {
                    Value::Octets(inside.to_vec())
                }
            }
        };
        (Self { tag: tag.to_vec(), indefinite: length.is_none(), value, false_length: None }, rest)
    }

    pub fn write(&self) -> Vec<u8> {
        let inside = match &self.value {
            Value::Octets(octets) => octets.clone(),
            Value::Parts(parts) => parts.iter().flat_map(Tlv::write).collect(),
        };
        let mut out = self.tag.clone();
        match (&self.false_length, self.indefinite) {
            (Some(length), _) => out.extend(length),
            (None, true) => out.push(0x80),
            (None, false) if inside.len() < 0x80 => out.push(inside.len() as u8),
            (None, false) => {
                let octets = inside.len().to_be_bytes();
                let octets = &octets[octets.iter().take_while(|octet| **octet == 0).count()..];
                out.push(0x80 | octets.len() as u8);
                out.extend(octets);
            }
        }
        out.extend(inside);
        if self.indefinite {
            out.extend([0, 0]);
        }
        out
    }

    /// How many TLVs there are, this one included.
    pub fn count(&self) -> usize {
        match &self.value {
            Value::Parts(parts) => 1 + parts.iter().map(Tlv::count).sum::<usize>(),
            Value::Octets(_) => 1,
        }
    }
}

/// What is done to one TLV.
#[derive(Debug, Clone, Copy)]
pub enum Mutation {
    Tag,
    Length,
    Value,
    Order,
    Duplication,
    Omission,
}

impl Mutation {
    pub const ALL: [Mutation; 6] =
        [Mutation::Tag, Mutation::Length, Mutation::Value, Mutation::Order, Mutation::Duplication, Mutation::Omission];
}

/// The tree with one thing done to its TLV number `target` (in the order of writing); `None` where it cannot be done there. Lengths
/// around it are made to fit.
pub fn mutated(root: &Tlv, target: usize, mutation: Mutation, random: &mut Random) -> Option<Vec<u8>> {
    let mut list = vec![root.clone()];
    let mut left = target;
    change(&mut list, &mut left, mutation, random).filter(|done| *done)?;
    Some(list.iter().flat_map(Tlv::write).collect())
}

/// `None`: the target lies elsewhere.
fn change(list: &mut Vec<Tlv>, left: &mut usize, mutation: Mutation, random: &mut Random) -> Option<bool> {
    for place in 0..list.len() {
        if *left == 0 {
            return Some(apply(list, place, mutation, random));
        }
        *left -= 1;
        if let Value::Parts(parts) = &mut list[place].value
            && let Some(done) = change(parts, left, mutation, random)
        {
            return Some(done);
        }
    }
    None
}

fn apply(list: &mut Vec<Tlv>, place: usize, mutation: Mutation, random: &mut Random) -> bool {
    let count = list.len();
    let one = &mut list[place];
    match mutation {
        Mutation::Tag => one.tag[0] ^= 1 << random.below(8),
        Mutation::Length => {
            let length = one.write().len() - one.tag.len();
            let wrong = [length.saturating_sub(2), length + 1, 0, 0x7f, 0x7fff_ffff][random.below(5)];
            one.false_length = Some([&[0x84][..], &(wrong as u32).to_be_bytes()].concat());
        }
        Mutation::Value => match &mut one.value {
            Value::Octets(octets) if octets.is_empty() => octets.push(random.next() as u8),
            Value::Octets(octets) => {
                let at = random.below(octets.len());
                octets[at] ^= 1 << random.below(8);
            }
            Value::Parts(_) => one.value = Value::Octets((0..random.below(20)).map(|_| random.next() as u8).collect()),
        },
        Mutation::Order if count < 2 => return false,
        Mutation::Order => {
            let other = (place + 1 + random.below(count - 1)) % count;
            list.swap(place, other);
        }
        Mutation::Duplication => {
            let again = one.clone();
            list.insert(place, again);
        }
        Mutation::Omission => drop(list.remove(place)),
    }
    true
}
