// The left operand of a product in layers, as it lies in memory: [rows, width] of bfloat16 in tiles.
//
// A tile is 128 rows by 64 columns, 16 KB in one piece, and the image of what the products keep in shared
// memory: rows of 128 bytes, whose 16-byte part p lies at p ^ (row % 8). Tiles of the same rows follow each
// other. To load one is a straight line, whoever copies, and ldmatrix and wgmma read it without bank
// conflicts. Epilogues write four columns of a row, 8 bytes; the four lanes of a row have two adjacent parts
// 2 q, 2 q + 1, which the swizzle moves together, so they still fill 32 bytes that start at a multiple of 32.
//
// ASSUMPTION: `width` is a multiple of 64, the rows allocated are one of 128, and memory starts at a multiple
// of 128 bytes.
#pragma once

#include "ptx.cuh"

namespace ldmlr::cuda {

constexpr int tile_rows = 128, tile_columns = 64;
constexpr int tile_bytes = tile_rows * tile_columns * 2;

// Index of an element; `column` and the three after it are adjacent if it is a multiple of four.
LDMLR_DEVICE int64_t operand_at(int row, int column, int width) {
    // Unsigned: a power of two then divides by a shift.
    const uint32_t r = static_cast<uint32_t>(row), c = static_cast<uint32_t>(column);
    const uint32_t tile = r / tile_rows * (static_cast<uint32_t>(width) / tile_columns) + c / tile_columns;
    const uint32_t within = r % tile_rows * tile_columns + (c / 8 ^ r) % 8 * 8 + c % 8;
    return static_cast<int64_t>(tile) * (tile_rows * tile_columns) + within;
}

LDMLR_DEVICE void store_operand(uint16_t *to, const float (&v)[4]) {
    *reinterpret_cast<uint2 *>(to) = {pack_bfloat(v[0], v[1]), pack_bfloat(v[2], v[3])};
}

// Columns of one row 16 apart, from one of the first 16 of a tile on, as an epilogue has them. A row starts
// at a multiple of 128 bytes and its 16 n-th columns differ from the first in bits 5 and 6 of the address
// alone, so an exclusive or of the lower word is all that a column costs.
struct OperandRow {
    uintptr_t first;
    LDMLR_DEVICE OperandRow(uint16_t *operand, int row, int column, int width)
        : first(reinterpret_cast<uintptr_t>(operand + operand_at(row, column, width))) {}
    LDMLR_DEVICE void store(int n, const float (&v)[4]) const {
        uint16_t *to = reinterpret_cast<uint16_t *>(first ^ static_cast<uintptr_t>(n % 4 * 32));
        store_operand(to + n / 4 * (tile_rows * tile_columns), v);
    }
};

}  // namespace ldmlr::cuda
