//! Byte strings in JSON records, as hex.

use serde::{Deserialize, Deserializer, Serializer, de::Error};

pub(crate) fn serialize<S: Serializer>(bytes: impl AsRef<[u8]>, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&hex::encode(bytes))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>, T: TryFrom<Vec<u8>>>(d: D) -> Result<T, D::Error> {
    let text = String::deserialize(d)?;
    let bytes = hex::decode(text).map_err(D::Error::custom)?;
    let got = bytes.len();
    T::try_from(bytes).map_err(|_| D::Error::custom(format!("{got} bytes are not the length expected")))
}
