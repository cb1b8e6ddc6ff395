// SPDX-License-Identifier: Apache-2.0
//
// As much of protobuf and of ttrpc's frames as floor-shim.c needs. What is read lies in the request; what is written, in a buffer that is large enough for every
// answer. It takes every request for what it should be.

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

enum { REQUEST = 1, RESPONSE = 2, HEADER = 10 };

struct bytes {
	const uint8_t *at;
	size_t length;
};

struct out {
	size_t length;
	uint8_t at[8192];
};

static uint64_t varint(struct bytes *in)
{
	uint64_t value = 0;
	for (int shift = 0; in->length > 0; shift += 7) {
		uint8_t byte = *in->at++;
		in->length--;
		value |= (uint64_t)(byte & 0x7f) << shift;
		if (byte < 0x80)
			break;
	}
	return value;
}

// The next field of `in`, whose value is `bytes` or `number`; 0 at the end.
static unsigned int next(struct bytes *in, struct bytes *value, uint64_t *number)
{
	if (in->length == 0)
		return 0;
	uint64_t tag = varint(in);
	*value = (struct bytes){NULL, 0};
	*number = 0;
	if ((tag & 7) == 0) {
		*number = varint(in);
	} else {
		size_t length = (tag & 7) == 2 ? varint(in) : (tag & 7) == 1 ? 8 : 4;
		if (length > in->length)
			return 0;
		*value = (struct bytes){in->at, length};
		in->at += length;
		in->length -= length;
	}
	return (unsigned int)(tag >> 3);
}

static struct bytes field(struct bytes in, unsigned int wanted)
{
	struct bytes value, found = {NULL, 0};
	uint64_t number;
	for (unsigned int at; (at = next(&in, &value, &number)) != 0;)
		if (at == wanted)
			found = value;
	return found;
}

static bool is(struct bytes text, const char *word)
{
	return text.length == strlen(word) && memcmp(text.at, word, text.length) == 0;
}

static void put_varint(struct out *out, uint64_t value)
{
	for (; value >= 0x80; value >>= 7)
		out->at[out->length++] = (uint8_t)(value | 0x80);
	out->at[out->length++] = (uint8_t)value;
}

static void put_number(struct out *out, unsigned int field, uint64_t value)
{
	put_varint(out, field << 3);
	put_varint(out, value);
}

static void put_bytes(struct out *out, unsigned int field, const void *bytes, size_t length)
{
	put_varint(out, field << 3 | 2);
	put_varint(out, length);
	memcpy(out->at + out->length, bytes, length);
	out->length += length;
}

static void put_text(struct out *out, unsigned int field, const char *text)
{
	put_bytes(out, field, text, strlen(text));
}

static void put_time(struct out *out, unsigned int field, struct timespec time)
{
	struct out inner = {0};
	put_number(&inner, 1, (uint64_t)time.tv_sec);
	put_number(&inner, 2, (uint64_t)time.tv_nsec);
	put_bytes(out, field, inner.at, inner.length);
}

static void write_all(int fd, const void *bytes, size_t length)
{
	check(send(fd, bytes, length, MSG_NOSIGNAL) == (ssize_t)length ? 0 : -1, "send");
}

static void send_frame(int fd, uint8_t kind, uint32_t stream, const struct out *message)
{
	static uint8_t frame[HEADER + sizeof message->at];
	uint32_t length = (uint32_t)message->length;
	const uint8_t head[HEADER] = {length >> 24, length >> 16, length >> 8, length, stream >> 24, stream >> 16, stream >> 8, stream, kind, 0};
	memcpy(frame, head, HEADER);
	memcpy(frame + HEADER, message->at, length);
	write_all(fd, frame, HEADER + length);
}

static void answer(int fd, uint32_t stream, const struct out *payload)
{
	struct out response = {0};
	put_bytes(&response, 2, payload->at, payload->length);
	send_frame(fd, RESPONSE, stream, &response);
}

static void refuse(int fd, uint32_t stream)
{
	struct out status = {0}, response = {0};
	put_number(&status, 1, 12); // UNIMPLEMENTED
	put_text(&status, 2, "not of a floor");
	put_bytes(&response, 1, status.at, status.length);
	send_frame(fd, RESPONSE, stream, &response);
}
