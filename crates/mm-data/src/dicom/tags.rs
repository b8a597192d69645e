//! The attributes that are kept while a file is read: group and element in one number (PS3.6).

/// A tag: the group in the high 16 bits, the element in the low ones.
pub(super) type Tag = u32;

pub(super) const TRANSFER_SYNTAX_UID: Tag = 0x0002_0010;
pub(super) const SOP_INSTANCE_UID: Tag = 0x0008_0018;
pub(super) const MODALITY: Tag = 0x0008_0060;
pub(super) const PATIENT_ID: Tag = 0x0010_0020;
pub(super) const BODY_PART_EXAMINED: Tag = 0x0018_0015;
pub(super) const STUDY_INSTANCE_UID: Tag = 0x0020_000d;
pub(super) const SERIES_INSTANCE_UID: Tag = 0x0020_000e;

pub(super) const SAMPLES_PER_PIXEL: Tag = 0x0028_0002;
pub(super) const PHOTOMETRIC_INTERPRETATION: Tag = 0x0028_0004;
pub(super) const PLANAR_CONFIGURATION: Tag = 0x0028_0006;
pub(super) const NUMBER_OF_FRAMES: Tag = 0x0028_0008;
pub(super) const ROWS: Tag = 0x0028_0010;
pub(super) const COLUMNS: Tag = 0x0028_0011;
pub(super) const BITS_ALLOCATED: Tag = 0x0028_0100;
pub(super) const BITS_STORED: Tag = 0x0028_0101;
pub(super) const PIXEL_REPRESENTATION: Tag = 0x0028_0103;

pub(super) const WINDOW_CENTER: Tag = 0x0028_1050;
pub(super) const WINDOW_WIDTH: Tag = 0x0028_1051;
pub(super) const VOI_LUT_FUNCTION: Tag = 0x0028_1056;
pub(super) const RESCALE_INTERCEPT: Tag = 0x0028_1052;
pub(super) const RESCALE_SLOPE: Tag = 0x0028_1053;
pub(super) const MODALITY_LUT_SEQUENCE: Tag = 0x0028_3000;
pub(super) const LUT_DESCRIPTOR: Tag = 0x0028_3002;
pub(super) const LUT_DATA: Tag = 0x0028_3006;
pub(super) const VOI_LUT_SEQUENCE: Tag = 0x0028_3010;

/// Of red, green and blue.
pub(super) const PALETTE_DESCRIPTORS: [Tag; 3] = [0x0028_1101, 0x0028_1102, 0x0028_1103];
pub(super) const PALETTE_DATA: [Tag; 3] = [0x0028_1201, 0x0028_1202, 0x0028_1203];
pub(super) const SEGMENTED_PALETTE_DATA: [Tag; 3] = [0x0028_1221, 0x0028_1222, 0x0028_1223];

pub(super) const FRAME_VOI_LUT_SEQUENCE: Tag = 0x0028_9132;
pub(super) const PIXEL_VALUE_TRANSFORMATION_SEQUENCE: Tag = 0x0028_9145;
pub(super) const SHARED_FUNCTIONAL_GROUPS: Tag = 0x5200_9229;
pub(super) const PER_FRAME_FUNCTIONAL_GROUPS: Tag = 0x5200_9230;

pub(super) const FLOAT_PIXEL_DATA: Tag = 0x7fe0_0008;
pub(super) const DOUBLE_FLOAT_PIXEL_DATA: Tag = 0x7fe0_0009;
pub(super) const PIXEL_DATA: Tag = 0x7fe0_0010;

pub(super) const ITEM: Tag = 0xfffe_e000;
pub(super) const ITEM_END: Tag = 0xfffe_e00d;
pub(super) const SEQUENCE_END: Tag = 0xfffe_e0dd;

/// Whether the attribute is a sequence that is kept.
pub(super) fn is_kept_sequence(tag: Tag) -> bool {
    matches!(
        tag,
        MODALITY_LUT_SEQUENCE
            | VOI_LUT_SEQUENCE
            | FRAME_VOI_LUT_SEQUENCE
            | PIXEL_VALUE_TRANSFORMATION_SEQUENCE
            | SHARED_FUNCTIONAL_GROUPS
            | PER_FRAME_FUNCTIONAL_GROUPS
    )
}

/// Whether the attribute is kept, as a value or as a sequence.
pub(super) fn is_kept(tag: Tag) -> bool {
    let kept = [
        TRANSFER_SYNTAX_UID,
        SOP_INSTANCE_UID,
        MODALITY,
        PATIENT_ID,
        BODY_PART_EXAMINED,
        STUDY_INSTANCE_UID,
        SERIES_INSTANCE_UID,
        SAMPLES_PER_PIXEL,
        PHOTOMETRIC_INTERPRETATION,
        PLANAR_CONFIGURATION,
        NUMBER_OF_FRAMES,
        ROWS,
        COLUMNS,
        BITS_ALLOCATED,
        BITS_STORED,
        PIXEL_REPRESENTATION,
        WINDOW_CENTER,
        WINDOW_WIDTH,
        VOI_LUT_FUNCTION,
        RESCALE_INTERCEPT,
        RESCALE_SLOPE,
        LUT_DESCRIPTOR,
        LUT_DATA,
        FLOAT_PIXEL_DATA,
        DOUBLE_FLOAT_PIXEL_DATA,
        PIXEL_DATA,
    ];
    let palettes = [PALETTE_DESCRIPTORS, PALETTE_DATA, SEGMENTED_PALETTE_DATA];
    kept.contains(&tag) || is_kept_sequence(tag) || palettes.iter().any(|tags| tags.contains(&tag))
}
