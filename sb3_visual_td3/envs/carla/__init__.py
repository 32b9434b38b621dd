"""What needs CARLA's official client; it is imported where it is used."""
