"""Synthetic people: pictures of clothed people in many poses together with their 18 keypoints.

No data set of this field may be downloaded without asking; this one is made on the spot. Sampling
is split in two: an ``Identity`` (body, hair, clothes) stays, a ``Pose`` changes from picture to
picture. Chairs and heads that are turned stand beside them.
"""
