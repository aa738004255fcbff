"""The site gateway: takes the streams of its edges, turns units into SI, stores, forwards; routes setpoints down."""
