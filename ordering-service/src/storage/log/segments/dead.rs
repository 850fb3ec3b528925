//! Which rows of a segment were forgotten: bits in a small file beside it, replaced whole. Damage to it costs room on the disk, nothing
//! else: a row that is forgotten may still be there.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::format::Seal;
use crate::{
    raft::types::ShardId,
    storage::wire::{DecodeError, Fields, Put},
};

const FORMAT: u32 = 1;
const MAGIC: &[u8; 8] = b"concsegd";

/// The forgotten rows of one segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Dead {
    shards: BTreeMap<ShardId, Bits>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Bits {
    /// Index of the first bit, a multiple of 8.
    base: u64,
    bits: Vec<u8>,
}

impl Dead {
    pub(super) fn add(&mut self, shard: ShardId, index: u64) {
        // A multiple of 8, so that whole bytes move when there are earlier ones.
        let base = index & !7;
        let bits = self.shards.entry(shard).or_insert_with(|| Bits { base, bits: Vec::new() });
        if base < bits.base {
            let missing = (bits.base - base) / 8;
            bits.bits.splice(0..0, std::iter::repeat_n(0, missing as usize));
            bits.base = base;
        }
        let (byte, bit) = Bits::place(index - bits.base);
        if bits.bits.len() <= byte {
            bits.bits.resize(byte + 1, 0);
        }
        bits.bits[byte] |= bit;
    }

    pub(super) fn contains(&self, shard: ShardId, index: u64) -> bool {
        let place = |bits: &Bits| {
            let (byte, bit) = Bits::place(index.checked_sub(bits.base)?);
            bits.bits.get(byte).map(|byte| byte & bit != 0)
        };
        self.shards.get(&shard).and_then(place).unwrap_or(false)
    }

    /// How many rows there are.
    pub(super) fn rows(&self) -> u64 {
        self.shards.values().flat_map(|bits| &bits.bits).map(|byte| u64::from(byte.count_ones())).sum()
    }

    pub(super) fn encode(&self, seal: &Seal) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.put_int32(FORMAT);
        bytes.put_int32(self.shards.len() as u32);
        for (shard, bits) in &self.shards {
            bytes.put_int32(*shard);
            bytes.put_int(bits.base);
            bytes.put_string(&bits.bits);
        }
        let checksum = seal.checksum(&bytes);
        bytes.put_int32(checksum);
        bytes
    }

    pub(super) fn decode(seal: &Seal, file: Bytes) -> Result<Dead, DecodeError> {
        let body = file.len().saturating_sub(4);
        let mut fields = Fields::new(file.clone());
        if fields.array::<8>("magic")? != *MAGIC {
            return Err(DecodeError::Value { what: "magic of the forgotten rows", got: 0 });
        }
        let format = fields.int32("format")?;
        if format != FORMAT {
            return Err(DecodeError::Value { what: "format of the forgotten rows", got: format.into() });
        }
        let mut shards = BTreeMap::new();
        for _ in 0..fields.count("shards", 4 + 8 + 4)? {
            let (shard, base) = (fields.int32("shard")?, fields.int("base")?);
            shards.insert(shard, Bits { base, bits: fields.string("bits")?.to_vec() });
        }
        let checksum = fields.int32("checksum")?;
        fields.end()?;
        if seal.checksum(&file[..body]) != checksum {
            return Err(DecodeError::Value { what: "checksum of the forgotten rows", got: checksum.into() });
        }
        Ok(Dead { shards })
    }
}

impl Bits {
    fn place(distance: u64) -> (usize, u8) {
        ((distance / 8) as usize, 1 << (distance % 8))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const SEAL: Seal = Seal { disk_id: [3; 16], segment: 9 };

    proptest! {
        #[test]
        fn it_is_the_set_that_was_added_and_survives_its_file(
            added in proptest::collection::vec((0u32..3, 0u64..300), 0..60)
        ) {
            let (mut dead, mut model) = (Dead::default(), BTreeSet::new());
            for (shard, index) in added {
                dead.add(shard, index);
                model.insert((shard, index));
            }
            prop_assert_eq!(dead.rows(), model.len() as u64);
            let back = Dead::decode(&SEAL, dead.encode(&SEAL).into()).unwrap();
            prop_assert_eq!(&back, &dead);
            for shard in 0..3 {
                for index in 0..320 {
                    prop_assert_eq!(back.contains(shard, index), model.contains(&(shard, index)));
                }
            }
        }
    }

    #[test]
    fn damage_is_noticed() {
        let mut dead = Dead::default();
        dead.add(1, 1000);
        dead.add(1, 990);
        let good = dead.encode(&SEAL);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(Dead::decode(&SEAL, bad.into()).is_err(), "byte {at}");
            assert!(Dead::decode(&SEAL, Bytes::copy_from_slice(&good[..at])).is_err(), "cut at {at}");
        }
    }
}
