/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation: a datagram is walked packet by packet. Of an Initial packet the header's protection is taken off, the payload is
 * decrypted, and its CRYPTO frames go into the assembly. 0-RTT and Handshake packets behind it are stepped over by their length. All
 * packets of a connection that begins have the same connection ID, since no server has answered yet.
 */
#include "gateway/verify/quic.h"

#include <string.h>

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#define VERSION_1    0x00000001U
#define VERSION_2    0x6b3343cfU
#define KEY_SIZE     16
#define IV_SIZE      12
#define HASH_SIZE    32
#define TAG_SIZE     16
#define SAMPLE_AT    4 /* octets from the packet number to the sample, RFC 9001 section 5.4.2 */
#define DATAGRAM_MAX 65535
#define LABEL_MAX    32

#define LONG_HEADER   0x80
#define FIXED_BIT     0x40
#define TYPE_MASK     0x30
#define RESERVED_MASK 0x0c
#define PN_SIZE_MASK  0x03

enum frame { FRAME_PADDING = 0, FRAME_PING = 1, FRAME_ACK = 2, FRAME_ACK_ECN = 3, FRAME_CRYPTO = 6, FRAME_CLOSE = 0x1c };

/* RFC 9001 section 5.2, RFC 9369 section 3. */
static const struct version {
	uint32_t number;
	uint8_t initial; /* the packet type's bits */
	uint8_t retry;
	uint8_t salt[20];
	const char *key, *iv, *hp;
} versions[] = {
	{VERSION_1,
	 0x00,
	 0x30,
	 {0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc, 0xbb, 0x7f, 0x0a},
	 "quic key",
	 "quic iv",
	 "quic hp"},
	{VERSION_2,
	 0x10,
	 0x00,
	 {0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb, 0xf9, 0xbd, 0x2e, 0xd9},
	 "quicv2 key",
	 "quicv2 iv",
	 "quicv2 hp"},
};

struct keys {
	uint8_t key[KEY_SIZE], iv[IV_SIZE], hp[KEY_SIZE];
};

/* A reader that never goes beyond the end; after it would have, `bad` is set and it gives zeros. */
struct cursor {
	const uint8_t *at, *end;
	bool bad;
};

static const uint8_t *take(struct cursor *cursor, uint64_t size)
{
	const uint8_t *at = cursor->at;

	if (cursor->bad || size > (uint64_t)(cursor->end - cursor->at)) {
		cursor->bad = true;
		return NULL;
	}
	cursor->at += size;
	return at;
}

static uint8_t take8(struct cursor *cursor)
{
	const uint8_t *at = take(cursor, 1);

	return at ? *at : 0;
}

static uint32_t take32(struct cursor *cursor)
{
	const uint8_t *at = take(cursor, 4);

	return at ? (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3] : 0;
}

/* RFC 9000 section 16. */
static uint64_t take_varint(struct cursor *cursor)
{
	uint8_t first = take8(cursor);
	uint64_t value = first & 0x3f;

	for (int more = (1 << (first >> 6)) - 1; more > 0; more--)
		value = value << 8 | take8(cursor);
	return value;
}

/* HKDF with SHA-256: extract when @label is NULL, else expand with a label of TLS 1.3 (RFC 8446 section 7.1). */
static bool derive(const uint8_t *key, size_t key_size, const uint8_t *salt, size_t salt_size, const char *label, uint8_t *out,
		   size_t out_size)
{
	EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
	EVP_KDF_CTX *context = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
	int mode = label ? EVP_KDF_HKDF_MODE_EXPAND_ONLY : EVP_KDF_HKDF_MODE_EXTRACT_ONLY;
	uint8_t info[4 + 6 + LABEL_MAX];
	size_t info_size = 0, label_size = label ? strlen(label) : 0;
	OSSL_PARAM parameters[6], *next = parameters;
	char digest[] = "SHA256";
	bool good;

	if (label) {
		info[info_size++] = (uint8_t)(out_size >> 8);
		info[info_size++] = (uint8_t)out_size;
		info[info_size++] = (uint8_t)(6 + label_size);
		memcpy(info + info_size, "tls13 ", 6);
		memcpy(info + info_size + 6, label, label_size);
		info_size += 6 + label_size;
		info[info_size++] = 0;
	}
	*next++ = OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode);
	*next++ = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0);
	*next++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)(uintptr_t)key, key_size);
	if (label)
		*next++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info, info_size);
	else
		*next++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)(uintptr_t)salt, salt_size);
	*next = OSSL_PARAM_construct_end();
	good = context && EVP_KDF_derive(context, out, out_size, parameters) == 1;
	EVP_KDF_CTX_free(context);
	EVP_KDF_free(kdf);
	return good;
}

static bool make_keys(const struct version *version, const uint8_t *id, size_t id_size, struct keys *out)
{
	uint8_t initial[HASH_SIZE], client[HASH_SIZE];

	return derive(id, id_size, version->salt, sizeof(version->salt), NULL, initial, sizeof(initial)) &&
	       derive(initial, sizeof(initial), NULL, 0, "client in", client, sizeof(client)) &&
	       derive(client, sizeof(client), NULL, 0, version->key, out->key, sizeof(out->key)) &&
	       derive(client, sizeof(client), NULL, 0, version->iv, out->iv, sizeof(out->iv)) &&
	       derive(client, sizeof(client), NULL, 0, version->hp, out->hp, sizeof(out->hp));
}

/* The mask of the header: one block of AES-128 in ECB mode (RFC 9001 section 5.4.3). */
static bool make_mask(const struct keys *keys, const uint8_t *sample, uint8_t mask[static KEY_SIZE])
{
	EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
	int size = 0;
	bool good = context && EVP_EncryptInit_ex(context, EVP_aes_128_ecb(), NULL, keys->hp, NULL) == 1 &&
		    EVP_CIPHER_CTX_set_padding(context, 0) == 1 && EVP_EncryptUpdate(context, mask, &size, sample, KEY_SIZE) == 1;

	EVP_CIPHER_CTX_free(context);
	return good && size == KEY_SIZE;
}

/* Return: octets of plain text in @out, or -1. @size: with the tag. */
static int decrypt(const struct keys *keys, uint64_t number, const uint8_t *header, size_t header_size, const uint8_t *payload, size_t size,
		   uint8_t *out)
{
	EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
	uint8_t nonce[IV_SIZE], tag[TAG_SIZE];
	int plain = 0, rest = 0, none;
	bool good;

	memcpy(nonce, keys->iv, sizeof(nonce));
	for (size_t i = 0; i < sizeof(number); i++)
		nonce[IV_SIZE - 1 - i] ^= (uint8_t)(number >> 8 * i);
	memcpy(tag, payload + size - TAG_SIZE, TAG_SIZE);
	good = context && EVP_DecryptInit_ex(context, EVP_aes_128_gcm(), NULL, keys->key, nonce) == 1 &&
	       EVP_DecryptUpdate(context, NULL, &none, header, (int)header_size) == 1 &&
	       EVP_DecryptUpdate(context, out, &plain, payload, (int)(size - TAG_SIZE)) == 1 &&
	       EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_SET_TAG, TAG_SIZE, tag) == 1 &&
	       EVP_DecryptFinal_ex(context, out + plain, &rest) == 1;
	EVP_CIPHER_CTX_free(context);
	return good ? plain + rest : -1;
}

static void skip_ack(struct cursor *cursor, bool ecn)
{
	uint64_t ranges;

	(void)take_varint(cursor); /* largest acknowledged */
	(void)take_varint(cursor); /* delay */
	ranges = take_varint(cursor);
	(void)take_varint(cursor); /* first range */
	for (uint64_t i = 0; i < ranges && !cursor->bad; i++) {
		(void)take_varint(cursor);
		(void)take_varint(cursor);
	}
	for (int i = 0; i < 3 && ecn; i++)
		(void)take_varint(cursor);
}

static enum quic_result read_crypto(struct cursor *cursor, struct assembly *hello)
{
	uint64_t offset = take_varint(cursor), size = take_varint(cursor);
	const uint8_t *bytes = take(cursor, size);

	if (!bytes)
		return QUIC_NOT;
	return assembly_add(hello, offset, bytes, (size_t)size) == ASSEMBLY_ADDED ? QUIC_READ : QUIC_CONFLICT;
}

/* Frames that an Initial packet may have, RFC 9000 section 17.2.2. */
static enum quic_result read_frames(struct cursor *cursor, struct assembly *hello)
{
	enum quic_result result = QUIC_READ;

	while (result == QUIC_READ && cursor->at < cursor->end) {
		switch (take_varint(cursor)) {
		case FRAME_PADDING:
		case FRAME_PING: break;
		case FRAME_ACK: skip_ack(cursor, false); break;
		case FRAME_ACK_ECN: skip_ack(cursor, true); break;
		case FRAME_CRYPTO: result = read_crypto(cursor, hello); break;
		default: result = QUIC_NOT;
		}
		if (cursor->bad)
			result = QUIC_NOT;
	}
	return result;
}

static const struct version *find_version(uint32_t number)
{
	for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++) {
		if (versions[i].number == number)
			return &versions[i];
	}
	return NULL;
}

/* @packet: from its first octet; @number_at: where its number is; @size: octets from there to its end. */
static enum quic_result read_protected(struct quic *quic, const struct version *version, const uint8_t *packet, size_t number_at,
				       size_t size)
{
	static uint8_t plain[DATAGRAM_MAX]; /* one loop, no threads */
	uint8_t header[DATAGRAM_MAX / 8], mask[KEY_SIZE];
	struct cursor cursor;
	struct keys keys;
	size_t number_size;
	uint64_t number = 0;
	int plain_size;

	if (size < SAMPLE_AT + KEY_SIZE || number_at + SAMPLE_AT > sizeof(header) || !make_keys(version, quic->id, quic->id_size, &keys) ||
	    !make_mask(&keys, packet + number_at + SAMPLE_AT, mask))
		return QUIC_NOT;
	memcpy(header, packet, number_at + SAMPLE_AT);
	header[0] ^= mask[0] & 0x0f;
	number_size = (header[0] & PN_SIZE_MASK) + 1U;
	for (size_t i = 0; i < number_size; i++) {
		header[number_at + i] ^= mask[1 + i];
		number = number << 8 | header[number_at + i];
	}
	if ((header[0] & RESERVED_MASK) != 0 || size < number_size + TAG_SIZE)
		return QUIC_NOT;
	plain_size = decrypt(&keys, number, header, number_at + number_size, packet + number_at + number_size, size - number_size, plain);
	if (plain_size < 0)
		return QUIC_NOT;
	quic->opened = true;
	cursor = (struct cursor){.at = plain, .end = plain + plain_size};
	return read_frames(&cursor, &quic->hello);
}

/* The connection's own IDs and version, or those of its first packet. */
static bool is_same(struct quic *quic, uint32_t version, const uint8_t *id, size_t size)
{
	if (quic->version == 0) {
		quic->version = version;
		quic->id_size = size;
		memcpy(quic->id, id, size);
	}
	return quic->version == version && quic->id_size == size && memcmp(quic->id, id, size) == 0;
}

/* Return: QUIC_READ also for a packet that is stepped over. */
static enum quic_result read_packet(struct quic *quic, struct cursor *cursor)
{
	const uint8_t *packet = cursor->at, *id, *number;
	uint8_t first = take8(cursor), id_size;
	const struct version *version = find_version(take32(cursor));
	bool initial = version && (first & TYPE_MASK) == version->initial;
	uint64_t length;

	if (!(first & LONG_HEADER) || cursor->bad)
		return QUIC_NOT;
	if (!version)
		return QUIC_VERSION;
	id_size = take8(cursor);
	id = take(cursor, id_size);
	(void)take(cursor, take8(cursor)); /* the client's own */
	if (!id || id_size > QUIC_ID_MAX || (first & TYPE_MASK) == version->retry || !is_same(quic, version->number, id, id_size)) {
		cursor->bad = true; /* where the next one begins is not known */
		return QUIC_NOT;
	}
	if (initial)
		(void)take(cursor, take_varint(cursor)); /* the token */
	length = take_varint(cursor);
	number = cursor->at;
	if (!take(cursor, length))
		return QUIC_NOT;
	return initial ? read_protected(quic, version, packet, (size_t)(number - packet), (size_t)length) : QUIC_READ;
}

bool quic_is_initial(const uint8_t *datagram, size_t size)
{
	struct cursor cursor = {.at = datagram, .end = datagram + size};
	uint8_t first = take8(&cursor);

	return take32(&cursor) != 0 && (first & LONG_HEADER) && (first & FIXED_BIT);
}

static void skip_zeros(struct cursor *cursor)
{
	while (cursor->at < cursor->end && *cursor->at == 0)
		cursor->at++;
}

enum quic_result quic_read(struct quic *quic, const uint8_t *datagram, size_t size)
{
	struct cursor cursor = {.at = datagram, .end = datagram + size};
	enum quic_result result = QUIC_NOT;

	do {
		result = read_packet(quic, &cursor);
		/* Behind the first packet anything may follow: a short header, or padding of the datagram. */
		skip_zeros(&cursor);
	} while (result == QUIC_READ && cursor.at < cursor.end && (*cursor.at & LONG_HEADER));
	return result;
}

bool quic_is_of(const struct quic *quic, const uint8_t *datagram, size_t size)
{
	struct cursor cursor = {.at = datagram, .end = datagram + size};
	uint8_t first = take8(&cursor);
	uint32_t version = take32(&cursor);
	uint8_t id_size = take8(&cursor);
	const uint8_t *id = take(&cursor, id_size);

	return id != NULL && (first & LONG_HEADER) && version != 0 && version == quic->version && id_size == quic->id_size &&
	       memcmp(id, quic->id, id_size) == 0;
}

bool quic_may_begin(const uint8_t *datagram, size_t size)
{
	struct cursor cursor = {.at = datagram, .end = datagram + size};
	bool found = false;

	/* A server takes each packet for itself: what one of them is says nothing about those behind it. */
	while (!found && !cursor.bad && cursor.at < cursor.end && (*cursor.at & LONG_HEADER)) {
		struct quic quic = {.version = 0};

		if (read_packet(&quic, &cursor) == QUIC_VERSION)
			return true;
		found = quic.opened;
		quic_free(&quic);
	}
	return found;
}

bool quic_is_all(const uint8_t *datagram, size_t size)
{
	struct cursor cursor = {.at = datagram, .end = datagram + size};

	while (!cursor.bad && cursor.at < cursor.end) {
		struct quic quic = {.version = 0};

		if (!(*cursor.at & LONG_HEADER) || read_packet(&quic, &cursor) == QUIC_VERSION)
			return false;
		quic_free(&quic);
		skip_zeros(&cursor);
	}
	return !cursor.bad;
}

void quic_free(struct quic *quic)
{
	assembly_free(&quic->hello);
	*quic = (struct quic){.version = 0};
}
