"""What all worlds share: roads and their lanes, routes, traffic, collisions, and maps in OpenDRIVE."""
