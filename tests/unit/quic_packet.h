/* SPDX-License-Identifier: MIT */
#ifndef SLUICE_TESTS_QUIC_PACKET_H
#define SLUICE_TESTS_QUIC_PACKET_H

/* Initial packets as clients make them. Goes behind gateway/verify/quic.c, whose keys it takes. */

/* Protect a packet of version 1. @out: room for @size and 64 octets. Return: its size; 0: libcrypto refused. */
static size_t protect(uint8_t *out, const uint8_t *id, size_t id_size, const uint8_t *frames, size_t size)
{
	size_t at = 0, number_at, header_size, length = 4 + size + TAG_SIZE;
	uint8_t mask[KEY_SIZE], nonce[IV_SIZE];
	struct keys keys;
	EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
	int written;
	bool good = make_keys(&versions[0], id, id_size, &keys);

	memcpy(out, (const uint8_t[]){0xc3, 0, 0, 0, 1}, 5);
	at = 5;
	out[at++] = (uint8_t)id_size;
	memcpy(out + at, id, id_size);
	at += id_size;
	out[at++] = 0; /* no ID of its own */
	out[at++] = 0; /* no token */
	out[at++] = (uint8_t)(0x40 | length >> 8);
	out[at++] = (uint8_t)length;
	number_at = at;
	memset(out + at, 0, 4);
	header_size = at + 4;
	memcpy(nonce, keys.iv, IV_SIZE);
	good = good && EVP_EncryptInit_ex(context, EVP_aes_128_gcm(), NULL, keys.key, nonce) == 1 &&
	       EVP_EncryptUpdate(context, NULL, &written, out, (int)header_size) == 1 &&
	       EVP_EncryptUpdate(context, out + header_size, &written, frames, (int)size) == 1 &&
	       EVP_EncryptFinal_ex(context, out + header_size + written, &written) == 1 &&
	       EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_GET_TAG, TAG_SIZE, out + header_size + size) == 1;
	EVP_CIPHER_CTX_free(context);
	if (!good || !make_mask(&keys, out + number_at + SAMPLE_AT, mask))
		return 0;
	out[0] ^= mask[0] & 0x0f;
	for (size_t i = 0; i < 4; i++)
		out[number_at + i] ^= mask[1 + i];
	return header_size + size + TAG_SIZE;
}

static inline size_t crypto_frame(uint8_t *out, size_t offset, const uint8_t *bytes, size_t size)
{
	memcpy(out,
	       (const uint8_t[]){FRAME_CRYPTO, (uint8_t)(0x40 | offset >> 8), (uint8_t)offset, (uint8_t)(0x40 | size >> 8), (uint8_t)size},
	       5);
	memcpy(out + 5, bytes, size);
	return size + 5;
}

#endif
