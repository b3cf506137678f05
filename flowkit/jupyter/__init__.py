"""What Jupyter loads of flowkit: the magic in an author's kernel; launcher's tile and scheduler in its server."""
