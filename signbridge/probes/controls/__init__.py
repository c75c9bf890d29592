"""What tells whether a score means anything, one file a control.

To add one:

1. write a file here with a :class:`~signbridge.probes.controls.measurement.Measurement`;
2. name it in :data:`signbridge.probes.controls.registry.MEASUREMENTS`;
3. test it in ``tests/probes/controls``, and let ``report/text`` say what it found.
"""
