"""Pictures and sound: decode, resample, resize, log-mel. Nothing is learned here, and no address is opened."""

from weft.media.images import image_size, load_image, resize_normalize
from weft.media.mel import log_mel, mel_filters
from weft.media.sound import audio_frames, audio_samples, audio_seconds, load_audio, resampled_length
from weft.media.source import DECODED_BYTES, MediaError, Stored, set_decoded_bytes
