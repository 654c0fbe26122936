"""The pool that the generated messages live in, apart from everybody else's.

A program may hold other definitions of the same names, as those of google.rpc, and in one pool
the second to come would be refused.
"""

from __future__ import annotations

from typing import Final

from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.duration_pb2 import DESCRIPTOR as DURATION

POOL: Final = DescriptorPool()
POOL.AddSerializedFile(DURATION.serialized_pb)
