"""The training of ingredients, here, in processes of this machine or on several machines."""
