//! Kafka's variable-length integers: zigzag, then seven bits a byte, lowest first.

/// The most bytes that a varint takes.
pub(super) const INT_BYTES_MAX: usize = 5;

/// Bytes that `value` takes as a varint.
#[inline]
pub(super) fn int_len(value: i32) -> usize {
    long_len(i64::from(value))
}

/// Bytes that `value` takes as a varlong.
#[inline]
pub(super) fn long_len(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// Appends `value` as a varint.
#[inline]
pub(super) fn put_int(out: &mut Vec<u8>, value: i32) {
    // Zigzag of the widened value is the widened zigzag: the same bytes come out.
    put_long(out, i64::from(value));
}

/// Appends `value` as a varlong.
#[inline]
pub(super) fn put_long(out: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Writes `value` as a varint over the start of `out`, which must have room for it.
#[inline]
pub(super) fn overwrite_int(out: &mut [u8], value: i32) {
    let mut rest = zigzag(i64::from(value));
    let mut index = 0;
    while rest >= 0x80 {
        out[index] = rest as u8 | 0x80;
        rest >>= 7;
        index += 1;
    }
    out[index] = rest as u8;
}

/// Takes a varint off the front of `bytes`; `None` if there is none within `i32`.
#[inline]
pub(super) fn take_int(bytes: &mut &[u8]) -> Option<i32> {
    let (&first, rest) = bytes.split_first()?;
    if first < 0x80 {
        *bytes = rest;
        return Some(i32::from(first >> 1) ^ -i32::from(first & 1));
    }
    let raw = take_raw(bytes, INT_BYTES_MAX)?;
    i32::try_from(unzigzag(raw)).ok()
}

/// Takes a varlong off the front of `bytes`; `None` if there is none within `i64`.
#[inline]
pub(super) fn take_long(bytes: &mut &[u8]) -> Option<i64> {
    let (&first, rest) = bytes.split_first()?;
    if first < 0x80 {
        *bytes = rest;
        return Some(unzigzag(u64::from(first)));
    }
    take_raw(bytes, 10).map(unzigzag)
}

#[inline]
fn take_raw(bytes: &mut &[u8], bytes_max: usize) -> Option<u64> {
    let mut raw = 0u64;
    for (index, &byte) in bytes.iter().take(bytes_max).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if index == 9 && bits > 1 {
            return None;
        }
        raw |= bits << (7 * index);
        if byte < 0x80 {
            *bytes = &bytes[index + 1..];
            return Some(raw);
        }
    }
    None
}

#[inline]
fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

#[inline]
fn unzigzag(raw: u64) -> i64 {
    (raw >> 1) as i64 ^ -((raw & 1) as i64)
}
