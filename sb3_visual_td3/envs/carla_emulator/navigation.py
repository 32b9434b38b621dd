"""Write the navigation file from which CARLA's client plans the routes of walkers.

The file has the format of RecastDemo (recastnavigation project): one tile, in version 7 of Detour's tile format.
Detour's axes are x, up, y.
"""

from __future__ import annotations

import hashlib
import struct

import numpy as np

from sb3_visual_td3.envs.road.footways import Footways

FOLDER = "Nav"
"""The folder that the client requests when it moves walkers."""
# RecastDemo, NavMeshSetHeader: magic, version, number of tiles, then dtNavMeshParams: origin, size of a tile, numbers
# of tiles and of polygons in a tile. NavMeshTileHeader: reference of the tile, size of its data.
_SET = struct.Struct("<iii3f2f2i")
_SET_MAGIC, _SET_VERSION = int.from_bytes(b"TESM", "little"), 1
_TILE_REF = struct.Struct("<Ii")
# DetourNavMesh.h, dtMeshHeader: magic, version, x, y, layer, user id, polygons, vertices, links, detail meshes, detail
# vertices, detail triangles, bounding volumes, off-mesh connections, first off-mesh polygon; walkable height, radius
# and climb, least and greatest corner, quantization.
_HEADER = struct.Struct("<15i10f")
_TILE_MAGIC, _TILE_VERSION = int.from_bytes(b"VAND", "little"), 7
_LINK_BYTES = 12
# dtPoly: first link, 6 vertices, 6 neighbours (index + 1), flags, number of vertices, area and type.
_POLYGON = struct.Struct("<I6H6HHBB")
# dtPolyDetail: first vertex, first triangle, numbers of both, padding. A triangle has 3 corners and flags of its sides.
_DETAIL = struct.Struct("<IIBBxx")
_TRIANGLES = bytes([0, 1, 2, 0b000101, 0, 2, 3, 0b010100])
# carla/nav/Navigation.h: areas and flags of pavements and of crosswalks.
_PAVEMENT_AREA, _PAVEMENT_FLAGS = 1, 0x02
_CROSSWALK_AREA, _CROSSWALK_FLAGS = 2, 0x04
_WALKER_HEIGHT_M, _WALKER_RADIUS_M, _CLIMB_M = 1.8, 0.3, 0.4
_MARGIN_M = 10.0
_MAX_CORNERS = 0xFFFF


def navigation_file(footways: Footways) -> bytes:
    """Return the navigation file of a map.

    :param footways: mesh on which pedestrians walk
    :return: content of the file, without a tile if the mesh is empty or too large
    """
    n_quads = len(footways.quads)
    if not n_quads or len(footways.corners_m) >= _MAX_CORNERS:
        return _SET.pack(_SET_MAGIC, _SET_VERSION, 0, 0.0, 0.0, 0.0, 1.0, 1.0, 1, 1)
    # (n, 2): x and y in CARLA's coordinates, whose y has the opposite sign.
    corners = footways.corners_m * (1.0, -1.0)
    low, high = corners.min(axis=0) - _MARGIN_M, corners.max(axis=0) + _MARGIN_M
    tile = _tile(footways, corners, low, high)
    polygon_bits = max(1, (n_quads - 1).bit_length())
    size_x, size_y = (high - low).tolist()
    header = _SET.pack(
        _SET_MAGIC, _SET_VERSION, 1, float(low[0]), 0.0, float(low[1]), size_x, size_y, 1, 1 << polygon_bits
    )
    # From the highest bit, a Detour reference has the tile's salt (here 1), the tile's number and the polygon's number.
    # With a single tile, the tile's number takes 0 bits.
    return header + _TILE_REF.pack(1 << polygon_bits, len(tile)) + tile


def navigation_name(map_name: str, content: bytes) -> str:
    """Return the name under which the client stores the navigation file; it depends on the file's content.

    :param map_name: short name of the map
    :param content: content of the navigation file
    """
    return f"{FOLDER}/{map_name}-{hashlib.sha256(content).hexdigest()[:16]}.bin"


def _tile(
    footways: Footways, corners: np.ndarray[tuple[int, int], np.dtype[np.float64]], low: object, high: object
) -> bytes:
    """Return the bytes of the only tile of the navigation file."""
    n_quads = len(footways.quads)
    low_x, low_y = np.asarray(low).tolist()
    high_x, high_y = np.asarray(high).tolist()
    n_links = 4 * n_quads
    counts = (n_quads, len(corners), n_links, n_quads, 0, 2 * n_quads, 0, 0, n_quads)
    header = _HEADER.pack(
        *(_TILE_MAGIC, _TILE_VERSION, 0, 0, 0, 0),
        *counts,
        *(_WALKER_HEIGHT_M, _WALKER_RADIUS_M, _CLIMB_M),
        *(low_x, -1.0, low_y, high_x, 3.0, high_y, 10.0),
    )
    vertices = np.stack([corners[:, 0], np.zeros(len(corners)), corners[:, 1]], axis=1).astype("<f4").tobytes()
    polygons, details = bytearray(), bytearray()
    for number, (quad, beyond) in enumerate(zip(footways.quads.tolist(), footways.beyond.tolist(), strict=True)):
        area, flags = _PAVEMENT_AREA, _PAVEMENT_FLAGS
        if footways.is_crossing[number]:
            area, flags = _CROSSWALK_AREA, _CROSSWALK_FLAGS
        # Detour needs the opposite order of the corners, because its axes are mirrored. Side i of the reversed outline,
        # from corner i to i + 1, is side 2 - i (modulo 4) of the original. A neighbour's number is its index + 1.
        corners_of = quad[::-1]
        neighbours = [beyond[2] + 1, beyond[1] + 1, beyond[0] + 1, beyond[3] + 1]
        polygons += _POLYGON.pack(0xFFFFFFFF, *corners_of, 0, 0, *neighbours, 0, 0, flags, 4, area)
        details += _DETAIL.pack(0, 2 * number, 0, 2)
    # The client fills in the links itself; the file has room for them.
    links = bytes(_LINK_BYTES * n_links)
    return header + vertices + bytes(polygons) + links + bytes(details) + _TRIANGLES * n_quads
