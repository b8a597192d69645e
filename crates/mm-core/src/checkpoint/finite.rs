//! Search for NaN and infinite numbers in raw bytes.

use tch::Kind;

/// Whether `bytes`, numbers of type `kind`, contain a NaN or infinity: a number with all bits of the exponent
/// set.
pub(super) fn has_non_finite(bytes: &[u8], kind: Kind) -> bool {
    match kind {
        Kind::Float => any(bytes, |number| u32::from_le_bytes(number) & 0x7f80_0000 == 0x7f80_0000),
        Kind::Half => any(bytes, |number| u16::from_le_bytes(number) & 0x7c00 == 0x7c00),
        Kind::BFloat16 => any(bytes, |number| u16::from_le_bytes(number) & 0x7f80 == 0x7f80),
        Kind::Double => any(bytes, |number| u64::from_le_bytes(number) >> 52 & 0x7ff == 0x7ff),
        _ => false,
    }
}

/// Whether `is_it` holds for any number of N bytes. Reduces whole blocks, which vectorizes.
fn any<const N: usize>(bytes: &[u8], is_it: impl Fn([u8; N]) -> bool) -> bool {
    let (numbers, _) = bytes.as_chunks::<N>();
    numbers.chunks(1024).any(|block| block.iter().fold(false, |found, number| found | is_it(*number)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Tensor;

    #[test]
    fn numbers_that_are_not_finite_are_found_in_every_type_wherever_they_are() {
        let largest = [
            (Kind::Float, f64::from(f32::MAX)),
            (Kind::Half, 65504.0),
            (Kind::BFloat16, 3.38e38),
            (Kind::Double, f64::MAX),
        ];
        for (kind, largest) in largest {
            let bytes_with = |odd: f64, at: i64| {
                let tensor = Tensor::zeros([3000], (Kind::Double, tch::Device::Cpu));
                let _ = tensor.narrow(0, at, 1).fill_(odd);
                let tensor = tensor.to_kind(kind);
                let mut bytes = vec![0; tensor.numel() * kind.elt_size_in_bytes()];
                tensor.copy_data_u8(&mut bytes, tensor.numel());
                bytes
            };
            for at in [0, 1500, 2999] {
                assert!(
                    [largest, -largest, 1e-30].iter().all(|&odd| !has_non_finite(&bytes_with(odd, at), kind))
                );
                let odds = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
                assert!(
                    odds.iter().all(|&odd| has_non_finite(&bytes_with(odd, at), kind)),
                    "{kind:?} at {at}"
                );
            }
        }
        assert!(!has_non_finite(&[255; 64], Kind::Int8));
    }
}
