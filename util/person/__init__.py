"""A person in a picture: pose maps, motion, the crop around somebody, the scene behind."""
